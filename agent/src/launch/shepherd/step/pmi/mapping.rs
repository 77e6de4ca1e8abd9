//! Which ranks run on which node, in the words of PMI?
//!
//! `(vector,(first node,nodes,ranks on each),...)`: MPI libraries use shared memory between tasks of a
//! node. A shepherd knows its own ranks and how many each node has; from the ways in which tasks are
//! spread it takes the one that fits. Where none does, nothing is said: then a library finds out by
//! itself, or does without.

/// The value of `PMI_process_mapping`; `own` are the ranks of the node with number `index`.
pub(super) fn mapping(counts: &[u32], own: &[u32], index: usize) -> Option<String> {
    let fits = |nodes: &Vec<usize>| {
        let here = nodes.iter().enumerate().filter(|(_, node)| **node == index);
        here.map(|(rank, _)| rank).eq(own.iter().filter_map(|&rank| usize::try_from(rank).ok()))
    };
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let nodes = (1..=most).rev().map(|plane| planes(counts, plane)).find(fits)?;
    Some(text(&nodes))
}

/// The node of each rank where `plane` at a time are put on one node after the other, as long as it
/// has room: 1 is cyclic, as many as any node has is block.
fn planes(counts: &[u32], plane: u32) -> Vec<usize> {
    let mut left = counts.to_vec();
    let mut nodes = Vec::new();
    while left.iter().any(|&room| room > 0) {
        for (node, room) in left.iter_mut().enumerate() {
            let here = plane.min(*room);
            *room -= here;
            nodes.extend((0..here).map(|_| node));
        }
    }
    nodes
}

fn text(nodes: &[usize]) -> String {
    // Runs of ranks on one node, then runs of nodes with as many ranks each.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &node in nodes {
        match runs.last_mut() {
            Some((last, ranks)) if *last == node => *ranks += 1,
            _ => runs.push((node, 1)),
        }
    }
    let mut blocks: Vec<(usize, usize, usize)> = Vec::new();
    for (node, ranks) in runs {
        match blocks.last_mut() {
            Some((first, count, each)) if *first + *count == node && *each == ranks => *count += 1,
            _ => blocks.push((node, 1, ranks)),
        }
    }
    let block = |(first, count, each): &(usize, usize, usize)| format!(",({first},{count},{each})");
    format!("(vector{})", blocks.iter().map(block).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_that_fits_is_told() {
        let of = |counts: &[u32], own: &[u32], index| mapping(counts, own, index);
        assert_eq!(of(&[2, 2, 2], &[2, 3], 1).unwrap(), "(vector,(0,3,2))");
        assert_eq!(of(&[2, 1], &[2], 1).unwrap(), "(vector,(0,1,2),(1,1,1))");
        assert_eq!(of(&[2, 2], &[1, 3], 1).unwrap(), "(vector,(0,2,1),(0,2,1))");
        assert_eq!(of(&[4, 4], &[0, 1, 4, 5], 0).unwrap(), "(vector,(0,2,2),(0,2,2))");
        assert_eq!(of(&[3], &[0, 1, 2], 0).unwrap(), "(vector,(0,1,3))");
        assert_eq!(of(&[2, 2], &[0, 3], 0), None, "spread by hand");
        assert_eq!(of(&[], &[], 0).unwrap(), "(vector)");
    }
}
