//! The cases, one file per family.

use crate::case::Family;

pub mod buffers;
pub mod bufring;
pub mod bundles;
pub mod cancel;
pub mod clone;
pub mod closing;
pub mod cmds;
pub mod direct;
pub mod enter;
pub mod epolls;
pub mod failures;
pub mod fileops;
pub mod files;
pub mod futexes;
pub mod garbage;
pub mod held;
pub mod kbuf;
pub mod keepers;
pub mod leaks;
pub mod lent;
pub mod links;
pub mod memory;
pub mod mixed;
pub mod multishot;
pub mod msg;
pub mod net;
pub mod paths;
pub mod personalities;
pub mod poll;
pub mod process;
pub mod queues;
pub mod random;
pub mod refusals;
pub mod regions;
pub mod register;
pub mod resize;
pub mod restricted;
pub mod rw;
pub mod sendrecv;
pub mod setup;
pub mod slots;
pub mod splices;
pub mod sqpoll;
pub mod sqthreads;
pub mod stamps;
pub mod streams;
pub mod timeout;
pub mod waiters;
pub mod waitids;
pub mod workers;
pub mod xattrs;
pub mod zerocopy;

/// All families, in the order they are run.
pub const FAMILIES: &[Family] = &[
    setup::FAMILY,
    leaks::FAMILY,
    memory::FAMILY,
    mixed::FAMILY,
    enter::FAMILY,
    queues::FAMILY,
    links::FAMILY,
    restricted::FAMILY,
    rw::FAMILY,
    lent::FAMILY,
    files::FAMILY,
    net::FAMILY,
    sendrecv::FAMILY,
    poll::FAMILY,
    held::FAMILY,
    timeout::FAMILY,
    cancel::FAMILY,
    register::FAMILY,
    personalities::FAMILY,
    keepers::FAMILY,
    resize::FAMILY,
    refusals::FAMILY,
    regions::FAMILY,
    slots::FAMILY,
    buffers::FAMILY,
    kbuf::FAMILY,
    multishot::FAMILY,
    streams::FAMILY,
    bundles::FAMILY,
    zerocopy::FAMILY,
    process::FAMILY,
    random::FAMILY,
    garbage::FAMILY,
    paths::FAMILY,
    fileops::FAMILY,
    xattrs::FAMILY,
    splices::FAMILY,
    sqpoll::FAMILY,
    sqthreads::FAMILY,
    direct::FAMILY,
    epolls::FAMILY,
    cmds::FAMILY,
    stamps::FAMILY,
    waiters::FAMILY,
    waitids::FAMILY,
    workers::FAMILY,
    futexes::FAMILY,
    failures::FAMILY,
    msg::FAMILY,
    clone::FAMILY,
    closing::FAMILY,
];
