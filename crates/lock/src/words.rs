//! The 64-bit words of the lock: atomics, which a test may spoil.
//!
//! With `--cfg soloring_sanitize` (`scripts/sanitize.sh`) the environment variable `SOLORING_SPOIL` takes one
//! promise of the lock away, so that the script can show that the sanitizer would have noticed:
//!
//! | value   | taken away |
//! |---------|------------|
//! | `slot`  | Release in `slot.rs`: the owner's leaving no longer publishes what it did to the state |
//! | `bias`  | Release in `bias.rs`: reopening the path no longer publishes what a foreign locker did |
//! | `mutex` | Release in `mutex.rs`: unlocking no longer publishes what the holder did |
//! | `blind` | looks at `busy` (Acquire in `slot.rs`) never find the owner inside |

#[cfg(not(soloring_sanitize))]
pub(crate) use std::sync::atomic::AtomicU64;

#[cfg(soloring_sanitize)]
pub(crate) use spoiled::AtomicU64;

#[cfg(soloring_sanitize)]
mod spoiled {
    use std::panic::Location;
    use std::sync::LazyLock;
    use std::sync::atomic::Ordering;

    /// `SOLORING_SPOIL`; an unknown value must not pass for a sound lock.
    static SPOIL: LazyLock<Option<&'static str>> = LazyLock::new(|| {
        let value = std::env::var("SOLORING_SPOIL").ok()?;
        let known = ["slot", "bias", "mutex", "blind"].into_iter().find(|known| *known == value);
        assert!(known.is_some(), "SOLORING_SPOIL={value}: slot, bias, mutex or blind");
        known
    });

    /// Whether `file` is the source of the lock's module of this name.
    fn is_module(file: &str, name: &str) -> bool {
        file.strip_suffix(".rs").and_then(|file| file.strip_suffix(name)).is_some()
    }

    /// The order of a store, made from where the caller stands, in this run.
    fn store_order(caller: &Location<'_>, order: Ordering) -> Ordering {
        let spoiled = *SPOIL;
        match order {
            // Its partners are named where the lock asks for it.
            Ordering::Release if spoiled.is_some_and(|name| is_module(caller.file(), name)) => {
                Ordering::Relaxed
            }
            _ => order,
        }
    }

    /// What of `std`'s the lock uses, by the same names.
    #[derive(Debug)]
    pub(crate) struct AtomicU64(std::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) const fn new(value: u64) -> Self {
            Self(std::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn as_ptr(&self) -> *mut u64 {
            self.0.as_ptr()
        }

        #[track_caller]
        pub(crate) fn load(&self, order: Ordering) -> u64 {
            let value = self.0.load(order);
            // Whoever asks for Acquire names its partner there.
            let looks = order == Ordering::Acquire && is_module(Location::caller().file(), "slot");
            if looks && *SPOIL == Some("blind") { value & !1 } else { value }
        }

        #[track_caller]
        pub(crate) fn store(&self, value: u64, order: Ordering) {
            self.0.store(value, store_order(Location::caller(), order));
        }

        #[track_caller]
        pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
            self.0.swap(value, store_order(Location::caller(), order))
        }

        pub(crate) fn fetch_add(&self, n: u64, order: Ordering) -> u64 {
            self.0.fetch_add(n, order)
        }

        pub(crate) fn compare_exchange(
            &self,
            old: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.0.compare_exchange(old, new, success, failure)
        }
    }
}
