//! What do libpmix's types look like in memory?
//!
//! As in `pmix_common.h` and `pmix_server.h` of the versions 2 to 5, whose binary interface is stable
//! (the PMIx ABI): sizes of keys and names, the value and its union, the order of the callbacks.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// `PMIX_MAX_NSLEN` and the zero behind it.
pub(super) const NSPACE_BYTES: usize = 256;
/// `PMIX_MAX_KEYLEN` and the zero behind it.
const KEY_BYTES: usize = 512;
/// Callbacks that any version may look for; those that are not there are null.
const MODULE_SLOTS: usize = 64;

/// `pmix_status_t` of what went well.
pub(super) const SUCCESS: c_int = 0;
/// Done already: no callback will come.
pub(super) const OPERATION_SUCCEEDED: c_int = -157;

/// Kinds of values.
const BOOL: u16 = 1;
const STRING: u16 = 3;
const UINT16: u16 = 13;
const UINT32: u16 = 14;
const INFO: u16 = 24;
const DATA_ARRAY: u16 = 39;
const PROC_RANK: u16 = 40;

/// `pmix_proc_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Proc {
    pub(super) nspace: [c_char; NSPACE_BYTES],
    pub(super) rank: u32,
}

/// The union in `pmix_value_t`, as far as it is used here; its largest member has 24 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
union Data {
    flag: bool,
    string: *const c_char,
    uint16: u16,
    uint32: u32,
    array: *const DataArray,
    _room: [u64; 3],
}

/// `pmix_value_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    kind: u16,
    data: Data,
}

/// `pmix_info_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Info {
    key: [c_char; KEY_BYTES],
    flags: u32,
    value: Value,
}

/// `pmix_data_array_t`.
#[repr(C)]
struct DataArray {
    kind: u16,
    size: usize,
    array: *const c_void,
}

/// `pmix_op_cbfunc_t`.
pub(super) type OpDone = unsafe extern "C" fn(c_int, *mut c_void);
/// `pmix_release_cbfunc_t`.
pub(super) type Release = unsafe extern "C" fn(*mut c_void);
/// `pmix_modex_cbfunc_t`.
pub(super) type ModexDone =
    unsafe extern "C" fn(c_int, *const c_char, usize, *mut c_void, Option<Release>, *mut c_void);
/// `pmix_dmodex_response_fn_t`.
pub(super) type ModexAnswer = unsafe extern "C" fn(c_int, *mut c_char, usize, *mut c_void);

/// Any callback.
type Slot = Option<unsafe extern "C" fn()>;

/// `pmix_server_module_t`: callbacks by their place. What is null is refused by the library.
#[repr(C)]
pub(super) struct Module {
    slots: [Slot; MODULE_SLOTS],
}

/// `pmix_server_client_finalized_fn_t`.
pub(super) type Finalized =
    unsafe extern "C" fn(*const Proc, *mut c_void, Option<OpDone>, *mut c_void) -> c_int;
/// `pmix_server_abort_fn_t`.
pub(super) type Abort = unsafe extern "C" fn(
    *const Proc,
    *mut c_void,
    c_int,
    *const c_char,
    *const Proc,
    usize,
    Option<OpDone>,
    *mut c_void,
) -> c_int;
/// `pmix_server_fencenb_fn_t`.
pub(super) type FenceNb = unsafe extern "C" fn(
    *const Proc,
    usize,
    *const Info,
    usize,
    *mut c_char,
    usize,
    Option<ModexDone>,
    *mut c_void,
) -> c_int;
/// `pmix_server_dmodex_req_fn_t`.
pub(super) type DirectModex =
    unsafe extern "C" fn(*const Proc, *const Info, usize, Option<ModexDone>, *mut c_void) -> c_int;

impl Module {
    /// With the callbacks that this server has.
    pub(super) fn new(
        finalized: Finalized,
        abort: Abort,
        fence: FenceNb,
        modex: DirectModex,
    ) -> Self {
        let mut slots: [Slot; MODULE_SLOTS] = [None; MODULE_SLOTS];
        // SAFETY: both are pointers to functions; the library calls each place by the type that its
        // header gives that place, which is the one that was put there.
        slots[1] =
            Some(unsafe { std::mem::transmute::<Finalized, unsafe extern "C" fn()>(finalized) });
        // SAFETY: as above.
        slots[2] = Some(unsafe { std::mem::transmute::<Abort, unsafe extern "C" fn()>(abort) });
        // SAFETY: as above.
        slots[3] = Some(unsafe { std::mem::transmute::<FenceNb, unsafe extern "C" fn()>(fence) });
        // SAFETY: as above.
        slots[4] =
            Some(unsafe { std::mem::transmute::<DirectModex, unsafe extern "C" fn()>(modex) });
        Self { slots }
    }
}

impl Proc {
    /// A process of a namespace; what does not fit is cut off.
    pub(super) fn new(nspace: &str, rank: u32) -> Self {
        let mut proc = Self { nspace: [0; NSPACE_BYTES], rank };
        fill(&mut proc.nspace, nspace);
        proc
    }

    /// The name of its namespace.
    pub(super) fn name(&self) -> String {
        let bytes: Vec<u8> = self.nspace.iter().map(|letter| letter.to_ne_bytes()[0]).collect();
        let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

fn fill(place: &mut [c_char], text: &str) {
    let room = place.len().saturating_sub(1);
    for (to, from) in place.iter_mut().take(room).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
}

/// Something that the library is told.
#[derive(Debug, Clone)]
pub(crate) enum Fact {
    /// Text; one with a zero in it is told as empty.
    Text(&'static str, String),
    /// A count.
    Number(&'static str, u32),
    /// A small count.
    Short(&'static str, u16),
    /// A rank.
    Rank(&'static str, u32),
    /// Yes or no.
    Flag(&'static str, bool),
    /// Facts that belong together.
    Many(&'static str, Vec<Fact>),
}

/// Facts in the library's form, with everything that they point to.
pub(super) struct Facts {
    infos: Vec<Info>,
    _texts: Vec<CString>,
    #[expect(clippy::vec_box, reason = "the library keeps their addresses while the list grows")]
    _arrays: Vec<Box<DataArray>>,
    _inner: Vec<Facts>,
}

impl Facts {
    pub(super) fn new(facts: &[Fact]) -> Self {
        let mut all = Self {
            infos: Vec::with_capacity(facts.len()),
            _texts: Vec::new(),
            _arrays: Vec::new(),
            _inner: Vec::new(),
        };
        facts.iter().for_each(|fact| all.add(fact));
        all
    }

    /// The first of them, and how many there are; good as long as this value lives.
    pub(super) fn as_ptr(&self) -> (*const Info, usize) {
        (self.infos.as_ptr(), self.infos.len())
    }

    fn add(&mut self, fact: &Fact) {
        let (key, kind, data) = match fact {
            Fact::Text(key, text) => {
                let text = CString::new(text.as_str()).unwrap_or_default();
                let data = Data { string: text.as_ptr() };
                self._texts.push(text);
                (key, STRING, data)
            }
            Fact::Number(key, uint32) => (key, UINT32, Data { uint32: *uint32 }),
            Fact::Short(key, uint16) => (key, UINT16, Data { uint16: *uint16 }),
            Fact::Rank(key, uint32) => (key, PROC_RANK, Data { uint32: *uint32 }),
            Fact::Flag(key, flag) => (key, BOOL, Data { flag: *flag }),
            Fact::Many(key, facts) => {
                let inner = Self::new(facts);
                let (first, size) = inner.as_ptr();
                let array = Box::new(DataArray { kind: INFO, size, array: first.cast() });
                let data = Data { array: &raw const *array };
                self._arrays.push(array);
                self._inner.push(inner);
                (key, DATA_ARRAY, data)
            }
        };
        let mut info = Info { key: [0; KEY_BYTES], flags: 0, value: Value { kind, data } };
        fill(&mut info.key, key);
        self.infos.push(info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_sizes_of_the_headers() {
        assert_eq!(size_of::<Proc>(), 260);
        assert_eq!(size_of::<Value>(), 32);
        assert_eq!(size_of::<Info>(), 552);
        assert_eq!(std::mem::offset_of!(Info, value), 520);
        assert_eq!(size_of::<DataArray>(), 24);
    }

    #[test]
    fn names_that_are_too_long_are_cut() {
        assert_eq!(Proc::new("7.0", 3).name(), "7.0");
        assert_eq!(Proc::new(&"x".repeat(999), 3).name().len(), NSPACE_BYTES - 1);
    }
}
