//! How is libpmix called, which is loaded only where a step wants it?
//!
//! The library has threads of its own, which call back; each call becomes a [`Call`], which is only
//! taken down there, so that whoever serves has them one after the other. A process has at most one
//! server.

mod abi;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

pub(crate) use abi::Fact;
use abi::{Facts, ModexAnswer, ModexDone, Module, OPERATION_SUCCEEDED, OpDone, Proc, SUCCESS};

/// The name that all versions since 2 have.
const LIBRARY: &CStr = c"libpmix.so.2";
/// How long the library may take for one of its preparations.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest list of processes, and variables, that the library may give.
const MAX_LIST: usize = 1 << 20;

/// What the library wants.
pub(crate) enum Call {
    /// These processes are at a fence and give `data`. A rank of [`EVERY_RANK`] is all of them.
    Fence { procs: Vec<(String, u32)>, data: Vec<u8>, answer: Answer },
    /// A process asks for what another has put, which is not on this node.
    Modex { nspace: String, rank: u32, answer: Answer },
    /// What [`Server::ask`] asked for.
    Found { ticket: usize, status: i32, data: Vec<u8> },
    /// A process ends them all.
    Abort { rank: u32, status: i32, message: String },
}

/// All ranks of a namespace, `PMIX_RANK_WILDCARD`.
pub(crate) const EVERY_RANK: u32 = u32::MAX - 1;

/// `PMIX_ERROR`.
pub(crate) const ERROR: i32 = -1;
/// `PMIX_ERR_NOT_FOUND`.
pub(crate) const NOT_FOUND: i32 = -46;
/// `PMIX_SUCCESS`.
pub(crate) const WELL: i32 = SUCCESS;

/// Who waits for data.
pub(crate) struct Answer {
    done: ModexDone,
    context: *mut c_void,
}

// SAFETY: the context is the library's own; it is only handed back to it, which may be done from any
// thread.
unsafe impl Send for Answer {}

impl Answer {
    /// Hands the data to the library.
    pub(crate) fn give(self, status: i32, data: Vec<u8>) {
        let data = Box::into_raw(Box::new(data));
        // SAFETY: it was just made, and is freed by `release` alone, which the call below names.
        let (first, length) = unsafe { ((*data).as_ptr(), (*data).len()) };
        // SAFETY: the function and its context came from the library for this one call; the data
        // stay until it calls `release`.
        unsafe {
            (self.done)(status, first.cast(), length, self.context, Some(release), data.cast());
        }
    }
}

unsafe extern "C" fn release(data: *mut c_void) {
    // SAFETY: it is the box that `give` made, and the library calls this once.
    drop(unsafe { Box::from_raw(data.cast::<Vec<u8>>()) });
}

/// Takes a call down, without waiting; false: nobody serves any more.
pub(crate) type Take = Box<dyn Fn(Call) -> bool + Send + Sync>;

/// Where calls go.
static CALLS: OnceLock<Take> = OnceLock::new();

fn tell(call: Call) -> c_int {
    let told = CALLS.get().is_some_and(|take| take(call));
    if told { SUCCESS } else { ERROR }
}

unsafe extern "C" fn finalized(
    _proc: *const Proc,
    _object: *mut c_void,
    done: Option<OpDone>,
    context: *mut c_void,
) -> c_int {
    if let Some(done) = done {
        // SAFETY: the function and its context came from the library for this one call.
        unsafe { done(SUCCESS, context) };
    }
    SUCCESS
}

unsafe extern "C" fn abort(
    proc: *const Proc,
    _object: *mut c_void,
    status: c_int,
    message: *const c_char,
    _procs: *const Proc,
    _count: usize,
    done: Option<OpDone>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the library passes a process, or none, that stays for this call.
    let rank = unsafe { proc.as_ref() }.map_or(0, |proc| proc.rank);
    let message = if message.is_null() {
        String::new()
    } else {
        // SAFETY: the text ends with a zero and stays for this call.
        unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
    };
    let told = tell(Call::Abort { rank, status, message });
    if let Some(done) = done {
        // SAFETY: the function and its context came from the library for this one call.
        unsafe { done(SUCCESS, context) };
    }
    told
}

unsafe extern "C" fn fence(
    procs: *const Proc,
    count: usize,
    _infos: *const abi::Info,
    _info_count: usize,
    data: *mut c_char,
    length: usize,
    done: Option<ModexDone>,
    context: *mut c_void,
) -> c_int {
    let Some(done) = done else { return ERROR };
    // SAFETY: the library passes so many processes, which stay for this call.
    let procs = unsafe { list(procs, count) };
    let procs = procs.iter().map(|proc| (proc.name(), proc.rank)).collect();
    // SAFETY: the library passes so many bytes, which stay for this call. Whether they are this side's
    // to free no version says; they are left to it, being few.
    let data = unsafe { list(data.cast::<u8>(), length) }.to_vec();
    tell(Call::Fence { procs, data, answer: Answer { done, context } })
}

/// # Safety
/// `first` is null, or begins `count` values that stay as long as the list is used.
unsafe fn list<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(first, count) }
}

unsafe extern "C" fn modex(
    proc: *const Proc,
    _infos: *const abi::Info,
    _info_count: usize,
    done: Option<ModexDone>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the library passes a process that stays for this call.
    let (Some(done), Some(proc)) = (done, unsafe { proc.as_ref() }) else { return ERROR };
    let answer = Answer { done, context };
    tell(Call::Modex { nspace: proc.name(), rank: proc.rank, answer })
}

unsafe extern "C" fn found(status: c_int, data: *mut c_char, length: usize, context: *mut c_void) {
    // SAFETY: the library passes so many bytes, which stay for this call.
    let data = unsafe { list(data.cast::<u8>(), length) }.to_vec();
    tell(Call::Found { ticket: context.addr(), status, data });
}

unsafe extern "C" fn op_done(status: c_int, context: *mut c_void) {
    // SAFETY: it is the box that `wait` made, and the library calls this once.
    let done = unsafe { Box::from_raw(context.cast::<SyncSender<c_int>>()) };
    // Whoever waited may have no patience any more.
    let _gone = done.send(status);
}

/// The loaded library.
pub(crate) struct Library(*mut c_void);

impl Library {
    /// Loads it; once loaded it stays.
    ///
    /// # Errors
    /// The loader's words where it is not there.
    pub(crate) fn load() -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers, as for any program that uses it.
        let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if !handle.is_null() {
            return Ok(Self(handle));
        }
        // SAFETY: the text, if there is one, ends with a zero and stays until the next such call.
        let text = unsafe { libc::dlerror() };
        if text.is_null() {
            return Err("it cannot be loaded".to_owned());
        }
        // SAFETY: as above.
        Err(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    fn symbol(&self, name: &CStr) -> Result<*mut c_void, String> {
        // SAFETY: the handle is open and the name ends with a zero.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if symbol.is_null() {
            return Err(format!("libpmix has no {}", name.to_string_lossy()));
        }
        Ok(symbol)
    }

    /// Its version, as "4.2.2"; empty if it does not say.
    pub(crate) fn version(&self) -> String {
        let Ok(symbol) = self.symbol(c"PMIx_Get_version") else { return String::new() };
        // SAFETY: this is the type of that symbol in pmix.h.
        let ask: unsafe extern "C" fn() -> *const c_char = unsafe { std::mem::transmute(symbol) };
        // SAFETY: it may be called before everything else, and from any thread.
        let text = unsafe { ask() };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: the text is a constant that ends with a zero.
        version_in(&unsafe { CStr::from_ptr(text) }.to_string_lossy()).to_owned()
    }

    /// Becomes the server of this process; what the library wants goes to `calls`.
    ///
    /// # Errors
    /// In words, where the library refuses, or there is a server already.
    pub(crate) fn serve(self, facts: &[Fact], calls: Take) -> Result<Server, String> {
        type Init = unsafe extern "C" fn(*const Module, *const abi::Info, usize) -> c_int;
        let symbol = self.symbol(c"PMIx_server_init")?;
        // SAFETY: this is the type of that symbol in pmix_server.h.
        let init: Init = unsafe { std::mem::transmute(symbol) };
        CALLS.set(calls).map_err(|_| "this process is a server already".to_owned())?;
        // The library may keep both for as long as it lives.
        let module = Box::leak(Box::new(Module::new(finalized, abort, fence, modex)));
        let facts = Box::leak(Box::new(Facts::new(facts)));
        let (first, count) = facts.as_ptr();
        // SAFETY: module and facts have the library's form and stay.
        let status = unsafe { init(&raw const *module, first, count) };
        let server = Server(self);
        server.check("PMIx_server_init", status)?;
        Ok(server)
    }
}

/// A library that serves.
pub(crate) struct Server(Library);

impl Server {
    /// Makes a namespace of `nspace` with `local` processes on this node.
    ///
    /// # Errors
    /// In words, where the library refuses.
    pub(crate) fn register_nspace(
        &self,
        nspace: &str,
        local: usize,
        facts: &[Fact],
    ) -> Result<(), String> {
        type Register = unsafe extern "C" fn(
            *const c_char,
            c_int,
            *const abi::Info,
            usize,
            Option<OpDone>,
            *mut c_void,
        ) -> c_int;
        const NAME: &CStr = c"PMIx_server_register_nspace";
        let symbol = self.0.symbol(NAME)?;
        // SAFETY: this is the type of that symbol in pmix_server.h.
        let register: Register = unsafe { std::mem::transmute(symbol) };
        // One that is slow may look at them after this returns.
        let facts = Box::leak(Box::new(Facts::new(facts)));
        let (first, count) = facts.as_ptr();
        let name = Box::leak(Box::new(Proc::new(nspace, 0)));
        let local = c_int::try_from(local).unwrap_or(c_int::MAX);
        // SAFETY: name and facts have the library's form and stay.
        self.wait(NAME, |done, context| unsafe {
            register(name.nspace.as_ptr(), local, first, count, Some(done), context)
        })
    }

    /// Lets one process of this node in, if it is this user's.
    ///
    /// # Errors
    /// In words, where the library refuses.
    pub(crate) fn register_client(
        &self,
        nspace: &str,
        rank: u32,
        (uid, gid): (u32, u32),
    ) -> Result<(), String> {
        type Register = unsafe extern "C" fn(
            *const Proc,
            u32,
            u32,
            *mut c_void,
            Option<OpDone>,
            *mut c_void,
        ) -> c_int;
        const NAME: &CStr = c"PMIx_server_register_client";
        let symbol = self.0.symbol(NAME)?;
        // SAFETY: this is the type of that symbol in pmix_server.h.
        let register: Register = unsafe { std::mem::transmute(symbol) };
        let proc = Box::leak(Box::new(Proc::new(nspace, rank)));
        // SAFETY: the process has the library's form and stays; an object is not needed.
        self.wait(NAME, |done, context| unsafe {
            register(&raw const *proc, uid, gid, std::ptr::null_mut(), Some(done), context)
        })
    }

    /// Variables by which a process finds this server.
    ///
    /// # Errors
    /// In words, where the library refuses.
    pub(crate) fn variables(&self, nspace: &str, rank: u32) -> Result<Vec<String>, String> {
        type Setup = unsafe extern "C" fn(*const Proc, *mut *mut *mut c_char) -> c_int;
        let symbol = self.0.symbol(c"PMIx_server_setup_fork")?;
        // SAFETY: this is the type of that symbol in pmix_server.h.
        let setup: Setup = unsafe { std::mem::transmute(symbol) };
        let proc = Proc::new(nspace, rank);
        let mut block: *mut *mut c_char = std::ptr::null_mut();
        // SAFETY: the process has the library's form; the block is empty, which the library extends
        // by memory of its own. It is not freed: this happens once.
        let status = unsafe { setup(&raw const proc, &raw mut block) };
        self.check("PMIx_server_setup_fork", status)?;
        let mut variables = Vec::new();
        while !block.is_null() && variables.len() < MAX_LIST {
            // SAFETY: the block ends with a null, which was not met yet.
            let text = unsafe { *block.add(variables.len()) };
            if text.is_null() {
                break;
            }
            // SAFETY: each is a text that ends with a zero.
            let text = unsafe { CStr::from_ptr(text) };
            variables.push(text.to_string_lossy().into_owned());
        }
        Ok(variables)
    }

    /// Asks for what a process of this node has put, now or once it has; [`Call::Found`] will name
    /// `ticket`.
    ///
    /// # Errors
    /// The library's status where it refuses.
    pub(crate) fn ask(&self, nspace: &str, rank: u32, ticket: usize) -> Result<(), i32> {
        type Ask = unsafe extern "C" fn(*const Proc, ModexAnswer, *mut c_void) -> c_int;
        let symbol = self.0.symbol(c"PMIx_server_dmodex_request").map_err(|_| ERROR)?;
        // SAFETY: this is the type of that symbol in pmix_server.h.
        let ask: Ask = unsafe { std::mem::transmute(symbol) };
        let proc = Proc::new(nspace, rank);
        // SAFETY: the process has the library's form, and is copied; the ticket is no pointer, and
        // only handed back.
        let status =
            unsafe { ask(&raw const proc, found, std::ptr::without_provenance_mut(ticket)) };
        if status == SUCCESS { Ok(()) } else { Err(status) }
    }

    /// Does what calls back once it is done, and waits for that.
    fn wait(
        &self,
        name: &CStr,
        begin: impl FnOnce(OpDone, *mut c_void) -> c_int,
    ) -> Result<(), String> {
        let (sender, receiver) = sync_channel::<c_int>(1);
        let context = Box::into_raw(Box::new(sender));
        let name = name.to_string_lossy();
        let status = begin(op_done, context.cast());
        if status != SUCCESS {
            // SAFETY: where the library does not begin, or is done at once, it does not call back.
            drop(unsafe { Box::from_raw(context) });
            return self.check(&name, status);
        }
        match receiver.recv_timeout(PATIENCE) {
            Ok(status) => self.check(&name, status),
            Err(_) => Err(format!("{name} does not come to an end")),
        }
    }

    fn check(&self, name: &str, status: c_int) -> Result<(), String> {
        if matches!(status, SUCCESS | OPERATION_SUCCEEDED) {
            return Ok(());
        }
        let text = self.0.symbol(c"PMIx_Error_string").map_or_else(
            |_| String::new(),
            |symbol| {
                // SAFETY: this is the type of that symbol in pmix.h.
                let ask: unsafe extern "C" fn(c_int) -> *const c_char =
                    unsafe { std::mem::transmute(symbol) };
                // SAFETY: it may be asked for any number, and gives a constant.
                let text = unsafe { ask(status) };
                if text.is_null() {
                    return String::new();
                }
                // SAFETY: the constant ends with a zero.
                unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
            },
        );
        Err(format!("{name} gives {status} {text}").trim_end().to_owned())
    }
}

/// The first word of a version's text that begins with a digit: "OpenPMIx 4.2.2 (PMIx Standard..)".
fn version_in(text: &str) -> &str {
    let word =
        text.split_ascii_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    word.unwrap_or_default().trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number() {
        let text = "OpenPMIx 4.2.2 (PMIx Standard: 4.1, Stable ABI: 0.0, Provisional ABI: 0.0)";
        assert_eq!(version_in(text), "4.2.2");
        assert_eq!(version_in("PMIx Standard 3.1.5, (git)"), "3.1.5");
        assert_eq!(version_in(""), "");
    }
}
