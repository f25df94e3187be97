//! What happens between a submission and its completions: descriptors closed or used for something else, memory
//! taken away, data and ends that come late.

use super::numbers::one_in;
use super::pages::Pages;
use super::world::{VICTIM, World};
use crate::sys;
use fastrand::Rng;
use soloring_abi::{Opcode, Sqe, sqe_flags};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meddle {
    Nothing,
    /// The victim's number is closed, or names another file.
    Close,
    Reuse,
    /// The victim, the empty pipe, a socket become readable.
    Count,
    Feed,
    Tell,
    /// The empty pipe has no writer any more.
    HangUp,
    /// The fleeting page is gone.
    Unmap,
}

/// Whether all entries have had their first attempt when the submission returns: what they find does not depend on
/// when a worker begins.
fn is_calm(batch: &[Sqe]) -> bool {
    use Opcode as O;
    let odd = sqe_flags::ALL & !(sqe_flags::FIXED_FILE | sqe_flags::BUFFER_SELECT);
    let waiting = [
        O::Read,
        O::Readv,
        O::ReadFixed,
        O::ReadvFixed,
        O::ReadMultishot,
        O::Recv,
        O::Recvmsg,
        O::PollAdd,
        O::Accept,
        O::EpollWait,
        O::Send,
    ];
    batch.iter().all(|s| s.flags & odd == 0 && waiting.iter().any(|o| *o as u8 == s.opcode))
}

impl Meddle {
    /// What shall happen to this batch.
    pub fn choose(rng: &mut Rng, batch: &[Sqe]) -> Meddle {
        use Meddle::{Close, Count, Feed, HangUp, Reuse, Tell, Unmap};
        let all = [Close, Reuse, Count, Feed, Tell, HangUp, Unmap];
        let chosen = all[rng.usize(..all.len())];
        if one_in(rng, 4) || !is_calm(batch) { Meddle::Nothing } else { chosen }
    }

    pub fn act(self, world: &mut World, pages: &mut Pages) {
        match self {
            Meddle::Nothing => {}
            Meddle::Close => {
                sys::close(world.fd(VICTIM));
            }
            Meddle::Reuse => {
                sys::dup2(world.fd("pipe r"), world.fd(VICTIM));
            }
            Meddle::Count => {
                sys::write(world.fd(VICTIM), &1u64.to_ne_bytes());
            }
            Meddle::Feed => {
                sys::write(world.empty_writer, b"late");
            }
            Meddle::Tell => {
                sys::write(world.fd("stream"), b"late");
            }
            Meddle::HangUp => {
                sys::close(std::mem::replace(&mut world.empty_writer, -1));
            }
            Meddle::Unmap => pages.unmap_fleeting(),
        }
    }
}
