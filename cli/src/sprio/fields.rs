//! Which columns does sprio have, and in which order do its lines stand?
//!
//! A capital letter shows points, the same small letter the factor between 0 and 1.

use penstock_proto::v1;

/// A letter of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    letter: char,
    /// As the first line shows it.
    pub(super) header: &'static str,
}

/// Letters and headers.
const FIELDS: &[Field] = &[
    Field { letter: 'a', header: "AGE" },
    Field { letter: 'A', header: "AGE" },
    Field { letter: 'b', header: "ASSOC" },
    Field { letter: 'B', header: "ASSOC" },
    Field { letter: 'c', header: "CLUSTER" },
    Field { letter: 'f', header: "FAIRSHARE" },
    Field { letter: 'F', header: "FAIRSHARE" },
    Field { letter: 'i', header: "JOBID" },
    Field { letter: 'j', header: "JOBSIZE" },
    Field { letter: 'J', header: "JOBSIZE" },
    Field { letter: 'N', header: "NICE" },
    Field { letter: 'o', header: "ACCOUNT" },
    Field { letter: 'p', header: "PARTITION" },
    Field { letter: 'P', header: "PARTITION" },
    Field { letter: 'q', header: "QOS" },
    Field { letter: 'Q', header: "QOS" },
    Field { letter: 'r', header: "PARTITION" },
    Field { letter: 'S', header: "SITE" },
    Field { letter: 't', header: "TRES" },
    Field { letter: 'T', header: "TRES" },
    Field { letter: 'u', header: "USER" },
    Field { letter: 'w', header: "AREA" },
    Field { letter: 'W', header: "AREA" },
    Field { letter: 'x', header: "XFACTOR" },
    Field { letter: 'X', header: "XFACTOR" },
    Field { letter: 'y', header: "PRIORITY" },
    Field { letter: 'Y', header: "PRIORITY" },
];

/// The field of a letter.
pub(super) fn by_letter(letter: char) -> Option<Field> {
    FIELDS.iter().find(|field| field.letter == letter).copied()
}

impl Field {
    /// What the field shows of a job.
    pub(super) fn of_job(self, row: &v1::PriorityRow) -> String {
        let factor = || factor(self.letter.to_ascii_lowercase(), row);
        match self.letter {
            'i' => match row.shown_id.as_str() {
                "" => row.job_id.to_string(),
                // Slurm names the waiting rest of an array by its number alone.
                shown => shown.split('_').next().unwrap_or(shown).to_owned(),
            },
            'c' => "(null)".to_owned(),
            'u' => row.user.clone(),
            'o' => row.account.clone(),
            'r' => row.partition.clone(),
            'N' => row.nice.to_string(),
            'S' => row.site.to_string(),
            'Y' => row.priority.to_string(),
            'y' => share_of_highest(row.priority),
            'T' => tres(row, |factor| factor.points.to_string()),
            't' => tres(row, |factor| format!("{:.2}", unit(factor.millionths))),
            'a' | 'b' | 'f' | 'j' | 'p' | 'q' | 'w' | 'x' => {
                format!("{:.7}", unit(factor().millionths))
            }
            _ => factor().points.to_string(),
        }
    }

    /// What the field shows in the line of weights.
    pub(super) fn of_weights(self, weights: &v1::PriorityWeights) -> String {
        let weight = match self.letter {
            'i' => return "Weights".to_owned(),
            'S' => 1,
            'a' | 'A' => weights.age,
            'b' | 'B' => weights.association,
            'f' | 'F' => weights.fair_share,
            'j' | 'J' => weights.job_size,
            'p' | 'P' => weights.partition,
            'q' | 'Q' => weights.qos,
            'x' | 'X' => weights.expansion,
            'w' | 'W' => weights.small_area,
            'T' => {
                let word = |amount: &v1::TresAmount| {
                    format!("{}={}", tres_name(&amount.kind), amount.count)
                };
                let words: Vec<String> = weights.tres.iter().map(word).collect();
                return words.join(",");
            }
            _ => return String::new(),
        };
        weight.to_string()
    }
}

/// As `PriorityWeightTRES` writes the kinds.
fn tres_name(kind: &str) -> String {
    match kind {
        "cpu" => "CPU".to_owned(),
        "mem" => "Mem".to_owned(),
        "node" => "Node".to_owned(),
        kind => kind.replacen("gres/", "GRES/", 1),
    }
}

fn factor(letter: char, row: &v1::PriorityRow) -> v1::PriorityFactor {
    let factor = match letter {
        'a' => &row.age,
        'b' => &row.association,
        'f' => &row.fair_share,
        'j' => &row.job_size,
        'p' => &row.partition_factor,
        'q' => &row.qos_factor,
        'w' => &row.small_area,
        _ => &row.expansion,
    };
    factor.unwrap_or_default()
}

/// Factors by kind, those that are not 0.
fn tres(row: &v1::PriorityRow, show: impl Fn(&v1::PriorityFactor) -> String) -> String {
    let shown = row.tres.iter().filter_map(|tres| {
        let factor = tres.factor.filter(|factor| factor.points != 0)?;
        Some(format!("{}={}", tres.kind, show(&factor)))
    });
    shown.collect::<Vec<_>>().join(",")
}

/// Millionths as a number; a factor is at most 1, so that it is exact enough for seven decimals.
fn unit(millionths: u64) -> f64 {
    f64::from(u32::try_from(millionths).unwrap_or(u32::MAX)) / 1e6
}

/// The priority as a share of the highest that there is, eight decimals, the rest dropped.
fn share_of_highest(priority: u32) -> String {
    let hundred_millionths = u64::from(priority) * 100_000_000 / u64::from(u32::MAX);
    format!("{}.{:08}", hundred_millionths / 100_000_000, hundred_millionths % 100_000_000)
}

/// One key of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SortKey {
    letter: char,
    reverse: bool,
}

/// Reads `-Y,i`.
///
/// # Errors
/// With the first letter that names no field.
pub(super) fn parse_sort(text: &str) -> Result<Vec<SortKey>, char> {
    let mut keys = Vec::new();
    let mut reverse = false;
    for letter in text.chars() {
        match letter {
            '-' => reverse = true,
            '+' | '#' | ',' | ' ' => {}
            letter => {
                by_letter(letter).ok_or(letter)?;
                keys.push(SortKey { letter, reverse });
                reverse = false;
            }
        }
    }
    Ok(keys)
}

/// Puts jobs in order; those that are equal in all keys keep theirs.
pub(super) fn sort(keys: &[SortKey], rows: &mut [&v1::PriorityRow]) {
    rows.sort_by(|a, b| {
        let order = keys.iter().map(|key| {
            let order = compare(key.letter, a, b);
            if key.reverse { order.reverse() } else { order }
        });
        order.into_iter().find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
}

fn compare(letter: char, a: &v1::PriorityRow, b: &v1::PriorityRow) -> std::cmp::Ordering {
    match letter {
        'i' => a.job_id.cmp(&b.job_id),
        'u' => a.user.cmp(&b.user),
        'o' => a.account.cmp(&b.account),
        'r' => a.partition.cmp(&b.partition),
        'N' => a.nice.cmp(&b.nice),
        'S' => a.site.cmp(&b.site),
        'y' | 'Y' => a.priority.cmp(&b.priority),
        't' | 'T' => points(a).cmp(&points(b)),
        'c' => std::cmp::Ordering::Equal,
        letter => {
            let of = |row| factor(letter.to_ascii_lowercase(), row).millionths;
            of(a).cmp(&of(b))
        }
    }
}

fn points(row: &v1::PriorityRow) -> i64 {
    row.tres.iter().filter_map(|tres| tres.factor).map(|factor| factor.points).sum()
}
