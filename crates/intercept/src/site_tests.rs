//! Which byte sequences count as rewritable sites.

use super::*;

const BASE: usize = 0x1000;

fn site(code: &[u8], mov_at: usize) -> Option<Site> {
    examine_bytes(code, BASE, BASE + mov_at)
}

const MOV_ENTER: [u8; 5] = [0xb8, 0xaa, 0x01, 0x00, 0x00];
const SYSCALL: [u8; 2] = [0x0f, 0x05];

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn adjacent_mov_and_syscall() {
    let code = cat(&[&[0x90], &MOV_ENTER, &SYSCALL, &[0xc3]]);
    let expected = Site { at: BASE + 1, nr: 426, mov_len: 5, syscall: BASE + 6 };
    assert_eq!(site(&code, 1), Some(expected));
}

#[test]
fn plain_moves_between_are_carried_along() {
    let code = cat(&[&MOV_ENTER, &[0x4d, 0x89, 0xe2], &[0x45, 0x31, 0xc9], &SYSCALL]); // mov r10,r12; xor r9d,r9d
    assert_eq!(site(&code, 0).map(|s| s.syscall), Some(BASE + 11));
    let sign_extended = cat(&[&[0x48, 0xc7, 0xc0, 0xaa, 1, 0, 0], &SYSCALL]);
    assert_eq!(site(&sign_extended, 0).map(|s| s.mov_len), Some(7));
}

#[test]
fn a_rex_prefix_makes_it_another_register() {
    let code = cat(&[&[0x41], &MOV_ENTER, &SYSCALL]); // mov $426, %r8d
    assert_eq!(site(&code, 1), None);
    assert_eq!(site(&code, 0), None);
}

#[test]
fn bytes_inside_another_instruction_are_no_site() {
    let code = cat(&[&[0x48, 0xbf], &MOV_ENTER, &SYSCALL, &[0x00, 0xc3]]); // movabs $.., %rdi
    assert_eq!(site(&code, 2), None);
}

#[test]
fn what_cannot_be_copied_is_left_to_the_filter() {
    let between: [&[u8]; 6] = [
        &[0x74, 0x02],                   // je
        &[0xe8, 0, 0, 0, 0],             // call
        &[0x48, 0x8b, 0x3d, 0, 0, 0, 0], // mov 0(%rip), %rdi
        &[0x89, 0xc7],                   // mov %eax, %edi
        &[0x55],                         // push %rbp
        &[0xb8, 0x03, 0x00, 0x00, 0x00], // mov $3, %eax
    ];
    for between in between {
        let code = cat(&[&MOV_ENTER, between, &SYSCALL, &[0x90; 16]]);
        assert_eq!(site(&code, 0), None, "{between:x?}");
    }
    let far = cat(&[&MOV_ENTER, &[0x90; 100], &SYSCALL]);
    assert_eq!(site(&far, 0), None, "too far");
    let other = cat(&[&[0xb8, 0xac, 0x01, 0, 0], &SYSCALL]);
    assert_eq!(site(&other, 0), None, "another number");
}

#[test]
fn possible_sites_are_found_in_one_pass() {
    let wide = [0x48, 0xc7, 0xc0, 0xab, 1, 0, 0];
    let fill = [0x90; 70];
    let text = cat(&[
        &MOV_ENTER, // too far from the first system call
        &fill,
        &wide,
        &SYSCALL,
        &MOV_ENTER,
        &[0xb9, 0x0f, 0x05, 0, 0], // looks like a system call, and stands before the real one
        &SYSCALL,
        &[0xb8, 0xaa, 1], // cut off
    ]);
    let mut found = Vec::new();
    possible_sites(&text, |at, nr| found.push((at, nr)));
    assert_eq!(found, [(75, 427), (84, 426)]);
    let mut none = 0;
    possible_sites(&SYSCALL, |_, _| none += 1);
    possible_sites(&cat(&[&[0x48], &SYSCALL]), |_, _| none += 1);
    assert_eq!(none, 0);
}
