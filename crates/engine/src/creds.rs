//! Personalities: credentials that a ring has registered, and system calls made with them.
//!
//! Credentials are kept by threads that have them (`hand.rs`). One, the keeper, is there as long as the personality is
//! registered or a request uses it, and makes the others. A call takes a hand that is free, or has one made: so as many
//! calls as there are callers go on at once.
//!
//! A request's operation goes its usual way, on the submitter or on a worker; only the system calls by which it does
//! its work are made by a hand ([`sys_as`]). Whoever makes them sleeps meanwhile, the submitter with its ring locked: for
//! the length of an attempt that does not block, and of two thread switches.
#![allow(unsafe_code)]

use crate::hand::Hand;
use crate::sys::check;
use soloring_abi::Errno;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use syscalls::Sysno;

/// As `sys!`, with the credentials of a request: `sys_as!(req, openat, fd, path, flags, mode)`.
///
/// For every call by which an operation does what it was asked to, but those that look at the calling thread itself
/// (waiting for its children).
macro_rules! sys_as {
    ($req:expr, $name:ident $(, $arg:expr)* $(,)?) => {
        match &$req.creds {
            None => $crate::sys::sys!($name $(, $arg)*),
            Some(creds) => {
                creds.call(syscalls::Sysno::$name, &[$($arg as usize),*], $req.is_on_worker())
            }
        }
    };
}
pub(crate) use sys_as;

/// Hands without work that are kept for the next call.
const FREE_MAX: usize = 4;
/// Ids are those of `sqe->personality`, where 0 means none.
const ID_MAX: u32 = u16::MAX as u32;

/// Credentials of the thread that registered them.
pub struct Creds {
    keeper: Mutex<Hand>,
    free: Mutex<Vec<Hand>>,
}

impl std::fmt::Debug for Creds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Creds")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Creds {
    /// # Errors
    /// ENOMEM when no thread can be had to keep them.
    pub fn of_this_thread() -> Result<Creds, Errno> {
        let mut keeper = Hand::of_this_thread().map_err(|_| Errno::ENOMEM)?;
        // 15 bytes are kept; the hands that it makes have its name.
        let name = format!("iou-crd-{}\0", std::process::id());
        let args = [libc::PR_SET_NAME as usize, name.as_ptr() as usize];
        // SAFETY: reads the name, which has its end.
        unsafe { keeper.call(Sysno::prctl, &args, false) };
        Ok(Creds { keeper: Mutex::new(keeper), free: Mutex::default() })
    }

    /// Makes one system call with these credentials. If `worker`, a signal to the calling thread interrupts it.
    ///
    /// # Errors
    /// What the call gives; ENOMEM when no thread can be had for it.
    ///
    /// # Safety
    /// As for the system call itself.
    #[cold]
    pub unsafe fn call(&self, nr: Sysno, args: &[usize], worker: bool) -> Result<usize, Errno> {
        if worker {
            // It may sleep for as long as it likes, and the caller with it.
            soloring_lock::assert_may_block();
        }
        let free = lock(&self.free).pop();
        let mut hand = match free {
            Some(hand) => hand,
            None => lock(&self.keeper).another().map_err(|_| Errno::ENOMEM)?,
        };
        let result = loop {
            // SAFETY: as the caller promises.
            match check(unsafe { hand.call(nr, args, worker) }) {
                // The rest of an interruption that was meant for the call before.
                Err(Errno::EINTR) if !worker => {}
                other => break other,
            }
        };
        let mut free = lock(&self.free);
        if free.len() < FREE_MAX {
            free.push(hand);
        }
        result
    }
}

/// The personalities of a ring, by id.
#[derive(Default)]
pub struct Personalities {
    by_id: BTreeMap<u16, Arc<Creds>>,
    /// Where the search for the next id begins.
    next: u32,
}

impl Personalities {
    pub fn get(&self, id: u16) -> Option<&Arc<Creds>> {
        self.by_id.get(&id)
    }

    /// Registers the calling thread's credentials: their id. Ids go round, as the kernel's do.
    ///
    /// # Errors
    /// EBUSY when every id is taken; ENOMEM.
    pub fn register(&mut self) -> Result<u16, Errno> {
        let id = self.find_id().ok_or(Errno::EBUSY)?;
        self.by_id.insert(id, Arc::new(Creds::of_this_thread()?));
        self.next = u32::from(id) + 1;
        Ok(id)
    }

    fn find_id(&self) -> Option<u16> {
        let is_free = |id: &u16| !self.by_id.contains_key(id);
        let from = self.next.max(1);
        (from..=ID_MAX).chain(1..from.min(ID_MAX + 1)).map(|id| id as u16).find(is_free)
    }

    /// Requests that use it already go on with it.
    ///
    /// # Errors
    /// EINVAL when it is not registered.
    pub fn unregister(&mut self, id: u32) -> Result<(), Errno> {
        let id = u16::try_from(id).map_err(|_| Errno::EINVAL)?;
        self.by_id.remove(&id).map(drop).ok_or(Errno::EINVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_calls_at_once_as_there_are_callers() {
        let creds = Creds::of_this_thread().expect("a thread");
        let all_here = std::sync::Barrier::new(12);
        std::thread::scope(|s| {
            for i in 0..12 {
                let (creds, all_here) = (&creds, &all_here);
                s.spawn(move || {
                    for _ in 0..50 {
                        all_here.wait();
                        let pause = [0u64, i * 10_000];
                        let args = [pause.as_ptr() as usize, 0];
                        // SAFETY: reads one timespec on our stack.
                        let slept = unsafe { creds.call(Sysno::nanosleep, &args, i % 2 == 0) };
                        assert_eq!(slept, Ok(0));
                    }
                });
            }
        });
        assert!((1..=FREE_MAX).contains(&lock(&creds.free).len()));
    }

    #[test]
    fn ids_go_round() {
        let mut all = Personalities::default();
        assert_eq!((all.register(), all.register(), all.register()), (Ok(1), Ok(2), Ok(3)));
        assert_eq!(all.unregister(2), Ok(()));
        assert_eq!(all.unregister(2), Err(Errno::EINVAL));
        assert_eq!(all.unregister(1 << 16 | 1), Err(Errno::EINVAL));
        assert_eq!(all.register(), Ok(4));
        all.next = ID_MAX;
        assert_eq!((all.register(), all.register(), all.register()), (Ok(65535), Ok(2), Ok(5)));
    }
}
