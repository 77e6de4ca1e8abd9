//! `penstock gpus`: which GPUs and slices are there, what do they do, and who has them?

mod rows;

use penstock_proto::v1;
use penstock_vocab::expand_unique;

use crate::connect::{Client, Patience};
use crate::errors::error;
use crate::output::{note, write_bytes};

const PROGRAM: &str = "penstock gpus";

/// Lists GPUs.
#[derive(Debug, clap::Args)]
pub(crate) struct Gpus {
    /// Hostlist, e.g. n[1-3] [default: every node that has GPUs]
    nodes: Option<String>,
    /// Show UUIDs and PCI addresses too
    #[arg(short, long)]
    long: bool,
    /// Leave out the line with the names of the columns
    #[arg(short = 'H', long)]
    no_header: bool,
}

impl Gpus {
    /// Asks and prints; returns the exit status.
    pub(crate) fn run(self) -> i32 {
        self.list().err().unwrap_or(0)
    }

    fn list(&self) -> Result<(), i32> {
        let wanted = match self.nodes.as_deref().map(expand_unique) {
            None => None,
            Some(Ok(names)) => Some(names),
            Some(Err(problem)) => {
                error(PROGRAM, &problem.to_string());
                return Err(1);
            }
        };
        let reply = Client::open().and_then(|client| {
            client.call(Patience::READ, |mut rpc| async move {
                rpc.list_nodes(v1::ListNodesRequest::default()).await
            })
        });
        let nodes = match reply {
            Ok(reply) => reply.nodes,
            Err(problem) => {
                if let Some(detail) = problem.detail() {
                    error(PROGRAM, &detail);
                }
                note(&format!("{PROGRAM}: {}", problem.slurm_text()));
                return Err(1);
            }
        };
        let name = |info: &v1::NodeInfo| info.node.clone().unwrap_or_default().name;
        if let Some(wanted) = &wanted
            && let Some(absent) = wanted.iter().find(|one| nodes.iter().all(|n| name(n) != **one))
        {
            error(PROGRAM, &format!("there is no node {absent}"));
            return Err(1);
        }
        let chosen: Vec<&v1::NodeInfo> = nodes
            .iter()
            .filter(|info| wanted.as_ref().is_none_or(|wanted| wanted.contains(&name(info))))
            .collect();
        let table = rows::table(&chosen, self.long, !self.no_header);
        if table.is_empty() {
            note("no node has told of a GPU");
        }
        write_bytes(table.as_bytes());
        for problem in rows::problems(&chosen) {
            note(&problem);
        }
        Ok(())
    }
}
