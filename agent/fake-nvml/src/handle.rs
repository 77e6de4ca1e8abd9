//! What do the opaque pointers that the library hands out mean?
//!
//! A handle is a number that is never followed: what it names, and the GPU's epoch, which a reset
//! raises, so that a handle from before a reset is refused.

/// What a handle names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    /// A GPU by index.
    Gpu(u8),
    /// A MIG device by GPU and the ids of its instances.
    Mig(u8, u8, u8),
    /// A GPU instance.
    Instance(u8, u8),
    /// A compute instance.
    Compute(u8, u8, u8),
    /// An event set of this process.
    Events(u8),
    /// A sample of this process.
    Sample(u8),
}

/// A handle as C sees it: an integer of a pointer's width, and passed as a pointer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(crate) struct Handle(pub(crate) usize);

/// Upper bits of every handle: an address that no process has.
const MAGIC: u64 = 0x5A00_0000_0000_0000;

impl Handle {
    /// The handle for `named` in a GPU's `epoch`.
    pub(crate) fn of(named: Named, epoch: u8) -> Self {
        let (kind, a, b, c) = match named {
            Named::Gpu(gpu) => (1, gpu, 0, 0),
            Named::Mig(gpu, gi, ci) => (2, gpu, gi, ci),
            Named::Instance(gpu, gi) => (3, gpu, gi, 0),
            Named::Compute(gpu, gi, ci) => (4, gpu, gi, ci),
            Named::Events(set) => (5, set, 0, 0),
            Named::Sample(sample) => (6, sample, 0, 0),
        };
        let bytes = [0, 0, epoch, kind, a, b, c, 1];
        let number = MAGIC | u64::from_be_bytes(bytes);
        Self(usize::try_from(number).expect("this library is for 64-bit machines"))
    }

    /// What it names and in which epoch; `None` for a number that this library did not give.
    pub(crate) fn named(self) -> Option<(Named, u8)> {
        let number = u64::try_from(self.0).ok()?;
        let [magic, 0, epoch, kind, a, b, c, 1] = number.to_be_bytes() else { return None };
        if magic != 0x5A {
            return None;
        }
        let named = match kind {
            1 => Named::Gpu(a),
            2 => Named::Mig(a, b, c),
            3 => Named::Instance(a, b),
            4 => Named::Compute(a, b, c),
            5 => Named::Events(a),
            6 => Named::Sample(a),
            _ => return None,
        };
        Some((named, epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_back_and_others_are_not() {
        for named in
            [Named::Gpu(7), Named::Mig(1, 13, 2), Named::Compute(0, 1, 0), Named::Events(9)]
        {
            assert_eq!(Handle::of(named, 3).named(), Some((named, 3)));
        }
        for number in [0, 1, 0x7fff_ffff_f000, usize::MAX] {
            assert_eq!(Handle(number).named(), None);
        }
    }
}
