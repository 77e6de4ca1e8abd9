//! Input of the tasks, as fast as every node takes it.

use bytes::Bytes;
use penstock_proto::v1::step_frame::{InputData, WindowSize};

use super::{Act, InputTo, NodeState, Session};

impl Session {
    /// Whether input may be read: somebody wants it, all are there, and everybody has room.
    pub(crate) fn wants_input(&self) -> bool {
        if self.input_ended {
            return false;
        }
        let mut anybody = false;
        for (index, node) in self.nodes.iter().enumerate() {
            if !self.is_fed(index, *node) {
                continue;
            }
            if !node.connected || node.credit == 0 {
                return false;
            }
            anybody = true;
        }
        anybody
    }

    /// Whether that node has a task that takes input.
    fn is_fed(&self, index: usize, node: NodeState) -> bool {
        let tasks = self.layout.tasks.get(index).map_or(&[][..], Vec::as_slice);
        let wanted = match self.habits.input {
            InputTo::All => true,
            InputTo::None => false,
            InputTo::Task(task) => tasks.contains(&task),
        };
        wanted && !node.is_over() && (!node.was_connected || self.exits.any_open(tasks))
    }

    /// Some input; empty: there is no more.
    pub(crate) fn on_input(&mut self, data: &Bytes) {
        let end = data.is_empty();
        self.input_ended |= end;
        let task = match self.habits.input {
            InputTo::Task(task) => Some(task),
            InputTo::All | InputTo::None => None,
        };
        for index in 0..self.nodes.len() {
            if !self.is_fed(index, self.nodes[index]) {
                continue;
            }
            let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let credit = &mut self.nodes[index].credit;
            *credit = credit.saturating_sub(size);
            self.acts.push(Act::Input(index, InputData { task, data: data.clone(), end }));
        }
    }

    /// The terminal has another size.
    pub(crate) fn on_window(&mut self, rows: u16, columns: u16) {
        let size = WindowSize { rows: rows.into(), columns: columns.into() };
        self.acts.push(Act::Window(size));
    }
}
