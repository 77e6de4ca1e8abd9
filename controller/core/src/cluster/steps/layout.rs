//! On which node does each task of a step run?
//!
//! Slurm's layouts (`src/common/slurm_step_layout.c` describes them, srun(1) names them): every node
//! gets at least one task; `block` then fills one node after the other, `cyclic` goes round, `plane`
//! goes round with blocks of its size. A node takes no more tasks than `room` says.

use crate::model::Distribution;

/// Ranks of the tasks on each node, in their local order. `room` is how many each node takes; there
/// are no fewer tasks than nodes, and no more than there is room for.
pub(super) fn layout(how: Distribution, tasks: u32, room: &[u32]) -> Vec<Vec<u32>> {
    let nodes = u32::try_from(room.len()).unwrap_or(u32::MAX);
    match how {
        Distribution::Default if tasks <= nodes => cyclic(tasks, room, 1),
        Distribution::Default | Distribution::Block | Distribution::Arbitrary => block(tasks, room),
        Distribution::Cyclic => cyclic(tasks, room, 1),
        Distribution::Plane(size) => cyclic(tasks, room, size.max(1)),
    }
}

/// One task to each node, then the rest to the first that has room.
fn block(tasks: u32, room: &[u32]) -> Vec<Vec<u32>> {
    let mut counts: Vec<u32> = room.iter().map(|room| (*room).min(1)).collect();
    let mut left = tasks.saturating_sub(counts.iter().fold(0, |sum, n| sum.saturating_add(*n)));
    for (count, room) in counts.iter_mut().zip(room) {
        let more = left.min(room.saturating_sub(*count));
        *count += more;
        left -= more;
    }
    let mut next = 0;
    let ranks = counts.into_iter().map(|count| {
        let from = next;
        next += count;
        (from..next).collect()
    });
    ranks.collect()
}

/// Blocks of `size` to each node that has room, in turn. The first round gives single tasks where
/// blocks would leave nothing for the last nodes.
fn cyclic(tasks: u32, room: &[u32], size: u32) -> Vec<Vec<u32>> {
    let mut ranks: Vec<Vec<u32>> = vec![Vec::new(); room.len()];
    let mut next = 0;
    while next < tasks {
        let before = next;
        for at in 0..room.len() {
            let have = u32::try_from(ranks[at].len()).unwrap_or(u32::MAX);
            let bare = ranks[at + 1..].iter().zip(&room[at + 1..]);
            let bare = bare.filter(|(ranks, room)| ranks.is_empty() && **room > 0).count();
            let kept = u32::try_from(bare).unwrap_or(u32::MAX);
            let left = (tasks - next).saturating_sub(if have == 0 { kept } else { 0 });
            let more = size.min(left).min(room[at].saturating_sub(have));
            ranks[at].extend(next..next + more);
            next += more;
        }
        if next == before {
            break;
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_where_slurm_puts_them() {
        use Distribution::{Block, Cyclic, Default, Plane};
        type Case = (Distribution, u32, &'static [u32], &'static [&'static [u32]]);
        let table: [Case; 10] = [
            // The example of srun(1): four tasks on three nodes of two CPUs.
            (Block, 4, &[2, 2, 2], &[&[0, 1], &[2], &[3]]),
            (Cyclic, 4, &[2, 2, 2], &[&[0, 3], &[1], &[2]]),
            (Default, 3, &[4, 4, 4], &[&[0], &[1], &[2]]),
            (Default, 4, &[4, 4], &[&[0, 1, 2], &[3]]),
            (Block, 6, &[4, 1, 4], &[&[0, 1, 2, 3], &[4], &[5]]),
            (Cyclic, 6, &[4, 1, 4], &[&[0, 3, 5], &[1], &[2, 4]]),
            (Plane(2), 8, &[4, 4], &[&[0, 1, 4, 5], &[2, 3, 6, 7]]),
            (Plane(4), 6, &[4, 4], &[&[0, 1, 2, 3], &[4, 5]]),
            (Plane(4), 4, &[4, 4], &[&[0, 1, 2], &[3]]),
            (Block, 5, &[u32::MAX], &[&[0, 1, 2, 3, 4]]),
        ];
        for (how, tasks, room, expect) in table {
            assert_eq!(layout(how, tasks, room), expect, "{how:?} {tasks} {room:?}");
        }
    }
}
