//! Memory that entries and calls may name: the same addresses on both sides.

use crate::sys;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// An address of the kernel's half.
pub const NOBODYS: u64 = 0xffff_8000_0000_0000;

/// Pages with a guard page behind each, and addresses that must not be touched.
pub struct Pages {
    pub scratch: &'static mut [u8],
    pub vectors: &'static mut [u8],
    pub message: &'static mut [u8],
    pub text: &'static mut [u8],
    pub table: &'static mut [u8],
    /// A page that is taken away while requests that name it wait.
    pub fleeting: u64,
    is_gone: bool,
    /// What entries may point to, with names.
    pub addresses: Vec<(String, u64)>,
    /// Path that `text` begins with.
    path: Vec<u8>,
}

/// Writes 64-bit words.
pub fn put(page: &mut [u8], words: &[u64]) {
    for (place, word) in page.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}

impl Pages {
    /// Made once for a process: both sides are given the same addresses.
    pub fn new(path: Vec<u8>) -> Pages {
        let [scratch, vectors, message, text, table] = [(); 5].map(|()| sys::guarded_page());
        let at = |page: &[u8]| page.as_ptr() as u64;
        let unmapped = sys::map(PAGE, 0) as u64;
        sys::unmap(unmapped as usize, PAGE);
        let mut addresses = vec![("0".into(), 0), ("1".into(), 1)];
        for (name, page) in [
            ("scratch", &*scratch),
            ("vectors", &*vectors),
            ("message", &*message),
            ("text", &*text),
            ("table", &*table),
        ] {
            for offset in [0, 8, 2048, 3072, 4000, 4088, 4095, 4096] {
                addresses.push((format!("{name}+{offset}"), at(page) + offset));
            }
        }
        let fleeting = sys::map(PAGE, libc::PROT_READ | libc::PROT_WRITE) as u64;
        for offset in [0, 8, 4088] {
            addresses.push((format!("fleeting+{offset}"), fleeting + offset));
        }
        let forbidden = sys::forbidden_page();
        addresses.push(("forbidden".into(), forbidden));
        addresses.push(("forbidden+4092".into(), forbidden + 4092));
        addresses.push(("read-only".into(), sys::read_only_page()));
        addresses.push(("unmapped".into(), unmapped));
        addresses.push(("kernel".into(), NOBODYS));
        addresses.push(("kernel-8".into(), 0x7fff_ffff_f000 - 8));
        addresses.push(("top".into(), u64::MAX - 7));
        let is_gone = false;
        Pages { scratch, vectors, message, text, table, fleeting, is_gone, addresses, path }
    }

    /// Takes the fleeting page away, until the next refreshing.
    pub fn unmap_fleeting(&mut self) {
        sys::unmap(self.fleeting as usize, PAGE);
        self.is_gone = true;
    }

    /// Gives the pages their contents again; `fds` are for lists of descriptors.
    pub fn refresh(&mut self, fds: &[i32]) {
        if std::mem::take(&mut self.is_gone) {
            sys::map_over(self.fleeting, PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
        }
        sys::poke(self.fleeting as usize, &[0; PAGE]);
        let at = self.scratch.as_ptr() as u64;
        for page in [
            &mut self.scratch,
            &mut self.vectors,
            &mut self.message,
            &mut self.text,
            &mut self.table,
        ] {
            page.fill(0);
        }
        // A short timespec, also a vector that nothing is at, and a futex of 0.
        put(self.scratch, &[0, 1_000_000]);
        put(&mut self.scratch[2048..], &[0, u64::MAX]);
        put(&mut self.scratch[4000..], &[u64::MAX, 0]);
        put(self.vectors, &[at, 8, at + 100, 8, at + 4090, 16, 0, 8]);
        // A vector whose end does not exist, and empty ones.
        put(&mut self.vectors[2048..], &[at, 0, at, 0, at + 4096, 0]);
        put(&mut self.vectors[4080..], &[at, 8]);
        // For FUTEX_WAITV: two futexes of 0 and one of 1; then with a wrong value; with a wild address.
        put(&mut self.vectors[3072..], &[0, at + 512, 0x82, 0, at + 516, 2, 1, at + 520, 0x82]);
        put(&mut self.vectors[3200..], &[1, at + 512, 0x82, 0, at + 516, 2]);
        put(&mut self.vectors[3300..], &[0, 8, 0x82, 0, at + 513, 2]);
        self.scratch[520] = 1;
        let vectors = self.vectors.as_ptr() as u64;
        // A header with two elements; one with an address behind it; one with a wild control length.
        put(self.message, &[0, 0, vectors, 2]);
        let unix = self.message.as_ptr() as u64 + 3000;
        put(&mut self.message[2048..], &[unix, 16, vectors, 1, at, 64]);
        self.message[3000..3007].copy_from_slice(b"\x01\0name\0");
        put(&mut self.message[4000..], &[0, u64::MAX, vectors, 4000, 0, 0, 0]);
        self.text[..self.path.len()].copy_from_slice(&self.path);
        self.text[8..12].copy_from_slice(b"new\0");
        self.text[2048..2060].copy_from_slice(b"user.name\0v\0");
        self.text[4000..].fill(b'x');
        for (i, fd) in fds.iter().enumerate() {
            self.table[i * 4..][..4].copy_from_slice(&fd.to_ne_bytes());
        }
        self.table[2048..].fill(0xff);
        self.table[4000..].fill(0);
    }

    /// Sees to it that no named word is a signal mask that blocks SIGALRM.
    pub fn unmask_alarm(&mut self) {
        const BIT: usize = libc::SIGALRM as usize - 1;
        let pages = [&mut self.scratch, &mut self.vectors, &mut self.message, &mut self.text];
        for page in pages.into_iter().chain([&mut self.table]) {
            for offset in [0, 8, 2048, 3072, 4000, 4088] {
                page[offset + BIT / 8] &= !(1 << (BIT % 8));
            }
        }
    }

    /// A number that changes with the contents.
    pub fn digest(&self) -> u64 {
        let pages = [&self.scratch, &self.vectors, &self.message, &self.text];
        let bytes = pages.into_iter().flat_map(|page| page.iter());
        bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ *b as u64).wrapping_mul(0x100_0000_01b3))
    }

    /// The name of an address, or the number.
    pub fn name(&self, address: u64) -> String {
        let known = self.addresses[2..].iter().find(|(_, a)| *a == address);
        known.map_or_else(|| format!("{address:#x}"), |(name, _)| name.clone())
    }
}
