//! Levels against a real epoll instance: told again as long as it lasts, silent when nobody takes it.
#![allow(unsafe_code)]

use super::*;

struct World {
    epfd: i32,
    watches: Watches,
    slab: Slab,
    reader: i32,
    writer: i32,
}

const IN: u32 = libc::EPOLLIN as u32;
const LEVEL: How = How { tried: false, ours: true, announced: false, level: true };

impl World {
    fn new() -> World {
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK) }, 0);
        let (epfd, [reader, writer]) = (sys::epoll_create().unwrap(), pipe);
        World { epfd, watches: Watches::new(99), slab: Slab::default(), reader, writer }
    }

    fn write(&self) {
        // SAFETY: reads one byte.
        assert_eq!(unsafe { libc::write(self.writer, c"x".as_ptr().cast(), 1) }, 1);
    }

    fn read(&self) {
        let mut byte = 0u8;
        // SAFETY: writes one byte.
        assert_eq!(unsafe { libc::read(self.reader, (&raw mut byte).cast(), 1) }, 1);
    }

    fn attach(&mut self, how: How) -> u32 {
        self.watches.attach(self.epfd, self.reader, IN, how, &mut self.slab).unwrap()
    }

    /// Names of the events that are there.
    fn events(&self) -> Vec<u64> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
        // SAFETY: room for eight events.
        let n = unsafe { libc::epoll_wait(self.epfd, events.as_mut_ptr(), 8, 0) };
        events[..n as usize].iter().map(|e| e.u64).collect()
    }

    /// The watch of the one event that is there.
    fn woken(&mut self) -> Option<u32> {
        let [data] = self.events()[..] else { panic!("not one event") };
        self.watches.named(self.epfd, data)
    }
}

#[test]
fn what_lasts_is_told_again_and_arming_costs_nothing() {
    let mut w = World::new();
    let watch = w.attach(LEVEL);
    w.watches.enlist(watch, 0, IN, Kind::Reader);
    w.write();
    w.write();
    assert_eq!(w.woken(), Some(watch));
    w.read();
    w.watches.leave(w.epfd, 0);
    let name = w.watches.list.get(watch).generation;
    assert_eq!(w.attach(LEVEL), watch);
    w.watches.enlist(watch, 0, IN, Kind::Reader);
    assert_eq!(w.watches.list.get(watch).generation, name, "epoll was not asked");
    assert_eq!(w.woken(), Some(watch), "the second byte");
    w.read();
    assert_eq!(w.events(), [], "all is taken");
}

#[test]
fn silent_when_nobody_waits() {
    let mut w = World::new();
    for _ in 0..10 {
        let watch = w.attach(LEVEL);
        w.watches.enlist(watch, 0, IN, Kind::Reader);
        w.watches.leave(w.epfd, 0);
        w.write();
        // Told at most a few times, not for ever.
        let mut told = 0;
        for _ in 0..100 {
            for event in w.events() {
                assert_eq!(w.watches.named(w.epfd, event), None);
                told += 1;
            }
        }
        assert!((1..4).contains(&told), "told {told} times");
        assert_eq!(w.attach(LEVEL), watch);
        w.watches.enlist(watch, 0, IN, Kind::Reader);
        assert_eq!(w.woken(), Some(watch), "who comes later is told");
        w.watches.leave(w.epfd, 0);
        w.read();
        w.events();
    }
    assert!(!w.watches.is_level(w.watches.list.find(w.reader)), "its level was of no use");
}

#[test]
fn edges_once_a_level_is_useless() {
    let mut w = World::new();
    let watch = w.attach(LEVEL);
    w.watches.enlist(watch, 0, IN, Kind::Reader);
    w.write();
    for _ in 0..3 {
        assert_eq!(w.woken(), Some(watch), "as long as it lasts");
    }
    w.watches.level_was_useless(w.epfd, watch);
    assert!(!w.watches.is_level(watch));
    assert_eq!(w.woken(), Some(watch), "once more");
    assert_eq!(w.events(), [], "and not for ever");
    w.write();
    assert_eq!(w.woken(), Some(watch), "the next edge");
}

#[test]
fn a_poll_among_readers_makes_it_edges() {
    let mut w = World::new();
    let watch = w.attach(LEVEL);
    w.watches.enlist(watch, 0, IN, Kind::Reader);
    w.write();
    assert_eq!(w.attach(How { level: false, ..LEVEL }), watch);
    w.watches.enlist(watch, 1, IN, Kind::Other);
    assert!(!w.watches.is_level(watch));
    assert_eq!(w.woken(), Some(watch), "what is there is told to the new one");
    assert_eq!(w.events(), []);
    assert_eq!(w.attach(LEVEL), watch);
    w.watches.enlist(watch, 2, IN, Kind::Reader);
    assert!(!w.watches.is_level(watch), "not while the poll waits");
}
