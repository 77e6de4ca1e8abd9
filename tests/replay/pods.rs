//! Is as much of a list of GPU pods placed where fragmentation decides as by best or first fit?
//!
//! Lists are made from a seed (SplitMix64): sizes as in Philly (half are one GPU), 2 to 20 CPUs a GPU,
//! pods that come one a second up to the GPUs of the cluster and stay for ever. What is placed when the
//! first one finds no room any more, and in all, tells how well the holes were kept together.

use std::fmt::Write as _;

use crate::binary::{dumped, file};

const NODES: u64 = 32;
const GPUS: u64 = 8;

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % below
    }
}

/// A list of pods that ask for as many GPUs as there are, and how many that is.
fn pods(seed: u64, cpus_a_gpu: (u64, u64)) -> String {
    let mut dice = Dice(seed);
    let mut text = "name,cpu,memory,gpu\n".to_owned();
    let (mut asked, mut nth) = (0, 0);
    while asked < NODES * GPUS {
        let gpus = match dice.roll(100) {
            0..50 => 1,
            50..68 => 2,
            68..86 => 4,
            86..96 => 8,
            _ => 3,
        };
        let each = cpus_a_gpu.0 + dice.roll(cpus_a_gpu.1 - cpus_a_gpu.0 + 1);
        let cpus = (each * gpus).min(96);
        writeln!(text, "p{nth},{cpus},{},{gpus}", gpus * 16_000).unwrap();
        (asked, nth) = (asked + gpus, nth + 1);
    }
    text
}

fn nodes() -> String {
    let mut text = "name,cpu,memory,gpu,model\n".to_owned();
    (0..NODES).for_each(|n| writeln!(text, "n{n},96,1000000,{GPUS},g").unwrap());
    text
}

/// GPUs that were placed, in all and before the first pod that found no room.
fn placed(list: &str, packing: &str) -> (u64, u64) {
    let (trace, cluster) =
        (file(list), tempfile::Builder::new().suffix(".csv").tempfile().unwrap());
    std::fs::write(cluster.path(), nodes()).unwrap();
    // First come, and whoever fits goes ahead: nothing ends, so that nobody is delayed.
    let policy = file(&format!(
        "[priority]\norder = \"fcfs\"\n[backfill]\ndepth = 1\n[placement]\ngpus = \"{packing}\"\n"
    ));
    let lines = dumped(
        trace.path(),
        &[
            "--cluster",
            cluster.path().to_str().unwrap(),
            "--policy",
            policy.path().to_str().unwrap(),
        ],
    );
    let gpus: Vec<u64> = list
        .lines()
        .skip(1)
        .map(|line| line.rsplit(',').next().unwrap().parse().unwrap())
        .collect();
    let started = lines.iter().zip(&gpus).filter(|(line, _)| line.start.is_some());
    let first = lines.iter().zip(&gpus).take_while(|(line, _)| line.start == Some(line.submit));
    (started.map(|(_, gpus)| gpus).sum(), first.map(|(_, gpus)| gpus).sum())
}

#[test]
fn fragmentation_places_as_many_as_best_fit_to_half_a_percent() {
    let policies = ["fragmentation", "best_fit", "first_fit"];
    let mut sums = [[0u64; 2]; 3];
    let mut all = 0;
    for (seed, cpus) in [(1, (2, 20)), (2, (2, 20)), (3, (2, 20)), (4, (4, 12)), (5, (8, 16))] {
        let list = pods(seed, cpus);
        let asked: u64 = list
            .lines()
            .skip(1)
            .map(|line| line.rsplit(',').next().unwrap().parse::<u64>().unwrap())
            .sum();
        all += asked;
        for (sum, policy) in sums.iter_mut().zip(policies) {
            let (total, first) = placed(&list, policy);
            *sum = [sum[0] + total, sum[1] + first];
        }
    }
    for (sum, policy) in sums.iter().zip(policies) {
        let percent = |part: u64| part as f64 * 100.0 / all as f64;
        println!(
            "{policy}: {:.1} % placed, {:.1} % before the first that waits",
            percent(sum[0]),
            percent(sum[1])
        );
    }
    let best = sums[1][0].max(sums[2][0]);
    assert!(sums[0][0] * 200 >= best * 199, "{sums:?} of {all}");
}
