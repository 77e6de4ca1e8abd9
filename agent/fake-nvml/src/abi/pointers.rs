//! What may be done with the pointers that C passes?
//!
//! NVML's contract: a pointer to be written is null or good for one value (of an array: for as many
//! as the count beside it says) until the call returns; a text to be read ends with a zero.

use std::ffi::{CStr, c_char, c_uint};

use nvml_wrapper_sys::bindings as sys;

use crate::state::{Answer, INVALID};

/// Where the caller wants something written.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Out<T>(*mut T);

/// What the caller wants read.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct In<T>(*const T);

impl<T: Copy> Out<T> {
    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Writes `value`; null is the caller's mistake.
    pub(super) fn put(self, value: T) -> Answer<()> {
        self.put_at(0, value)
    }

    /// Writes the value number `at` of an array that has room for it.
    pub(super) fn put_at(self, at: usize, value: T) -> Answer<()> {
        if self.0.is_null() {
            return Err(INVALID);
        }
        // SAFETY: an `Out` is made by a C caller alone, who by the contract passes a pointer good
        // for as many values as it says; whoever calls this stays below that.
        unsafe { self.0.add(at).write_unaligned(value) };
        Ok(())
    }

    /// What is there already: a version, a size or a count.
    pub(super) fn get(self) -> Answer<T> {
        self.get_at(0)
    }

    /// The value number `at` of an array that has it.
    pub(super) fn get_at(self, at: usize) -> Answer<T> {
        if self.0.is_null() {
            return Err(INVALID);
        }
        // SAFETY: as in `put_at`; the caller filled in what the call is to read.
        Ok(unsafe { self.0.add(at).read_unaligned() })
    }

    /// The same place seen as another kind of value, of which it holds one.
    pub(super) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// A place `bytes` behind this one, within the same value.
    pub(super) fn behind<U>(self, bytes: usize) -> Out<U> {
        // No access: an address of the caller's own value.
        Out(self.0.cast::<u8>().wrapping_add(bytes).cast())
    }
}

impl Out<c_char> {
    /// Writes `text` and a zero, if `length` has room.
    pub(super) fn text(self, length: c_uint, text: &[u8]) -> Answer<()> {
        if (length as usize) <= text.len() {
            return Err(sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
        }
        for (at, byte) in text.iter().chain([&0]).enumerate() {
            self.put_at(at, c_char::from_ne_bytes([*byte]))?;
        }
        Ok(())
    }
}

impl<T: Copy> In<T> {
    /// What is there.
    pub(super) fn get(self) -> Answer<T> {
        Out(self.0.cast_mut()).get()
    }
}

impl In<c_char> {
    /// The text there.
    pub(super) fn text<'a>(self) -> Answer<&'a str> {
        if self.0.is_null() {
            return Err(INVALID);
        }
        // SAFETY: an `In` is made by a C caller alone, who by the contract passes a text that ends
        // with a zero and stays until the call returns; nothing keeps it longer.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| INVALID)
    }
}

/// `text` in a field of `N` letters.
pub(super) fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (place, byte) in field[..N - 1].iter_mut().zip(text.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    field
}
