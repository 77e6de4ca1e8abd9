//! What did somebody probably mean who typed a name that there is not?
//!
//! The nearest name is told as a last line on standard error, behind the text that tools match.

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::output::note;

/// Longest word that is compared; more is no slip of the fingers.
const MAX_WORD: usize = 64;

/// The name that is nearest to `word`, where one is near: a third of its letters may be wrong, and two
/// neighbours that changed places are one slip.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let letters: Vec<char> = word.to_lowercase().chars().collect();
    if letters.is_empty() || letters.len() > MAX_WORD {
        return None;
    }
    let most = (letters.len() / 3).max(1);
    let far = |name: &'n str| {
        let other: Vec<char> = name.to_lowercase().chars().take(MAX_WORD + 1).collect();
        (distance(&letters, &other), name)
    };
    let (slips, name) = names.into_iter().map(far).min_by_key(|(slips, _)| *slips)?;
    (slips <= most && slips < letters.len()).then_some(name)
}

/// Letters to add, drop, change or swap with their neighbour (optimal string alignment, the restricted
/// form of Damerau's distance).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let changed = above[column] + usize::from(letter != other);
            let mut least = changed.min(above[column + 1] + 1).min(line[column] + 1);
            let swapped = row > 0 && column > 0 && left[row - 1] == *other;
            if swapped && right[column - 1] == *letter {
                least = least.min(before[column - 1] + 1);
            }
            line.push(least);
        }
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or(0)
}

/// Says which partition was probably meant by a name that the controller refused.
pub(crate) fn partition(client: &Client, program: &str, wanted: &[String]) {
    let Ok(reply) = client.call(Patience::READ, |mut rpc| async move {
        rpc.list_partitions(v1::ListPartitionsRequest::default()).await
    }) else {
        return;
    };
    let names: Vec<&str> =
        reply.partitions.iter().map(|partition| partition.name.as_str()).collect();
    partition_among(program, wanted, &names);
}

/// Says which of some partitions was probably meant by a name that is none of them.
pub(crate) fn partition_among(program: &str, wanted: &[String], names: &[&str]) {
    for word in wanted.iter().filter(|word| !names.contains(&word.as_str())) {
        if let Some(name) = nearest(word, names.iter().copied()) {
            note(&format!("{program}: did you mean {name}?"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slips_of_the_fingers_are_seen_and_other_words_are_not() {
        let names = ["partition", "nodelist", "time", "gpu-long"];
        let check = |word: &str, expect| assert_eq!(nearest(word, names), expect, "{word}");
        check("partiton", Some("partition"));
        check("Partitoin", Some("partition"));
        check("nodes", None);
        check("tiem", Some("time"));
        check("gpulong", Some("gpu-long"));
        check("x", None);
        check("", None);
        check("something-else", None);
        assert_eq!(nearest("main", []), None);
    }

    proptest! {
        #[test]
        fn a_name_is_nearest_to_itself(name in "[a-z-]{2,12}") {
            prop_assert_eq!(nearest(&name, ["qqqqqqqqqqqqqqqq", &name]), Some(&*name));
        }

        #[test]
        fn distance_is_the_same_both_ways(left in "[abc]{0,8}", right in "[abc]{0,8}") {
            let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
            prop_assert_eq!(distance(&left, &right), distance(&right, &left));
        }
    }
}
