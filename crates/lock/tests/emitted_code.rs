//! The owner's critical section, as the compiler emitted it: no locked instruction, no fence.
#![cfg(target_arch = "x86_64")]

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use object::{Object, ObjectSection, ObjectSymbol};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

/// Builds the probe in release mode, whatever mode this test is in, and reads it.
fn probe() -> Vec<u8> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("emitted_code");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--offline"])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../lock-probe/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // The code in question is what users get, not what a coverage or sanitizer run asks for.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let binary = target.join("release/soloring-lock-probe");
    let run = Command::new(&binary).output().expect("the probe runs");
    assert!(String::from_utf8_lossy(&run.stdout).starts_with("true"), "{run:?}");
    std::fs::read(binary).expect("the probe can be read")
}

struct Code {
    text: Vec<u8>,
    base: u64,
    /// Start address -> name, size.
    functions: BTreeMap<u64, (String, u64)>,
}

impl Code {
    fn of(binary: &[u8]) -> Self {
        let file = object::File::parse(binary).expect("an object file");
        let section = file.section_by_name(".text").expect("a .text section");
        let functions = file
            .symbols()
            .filter(|symbol| symbol.is_definition() && symbol.size() > 0)
            .map(|symbol| {
                (symbol.address(), (symbol.name().unwrap_or_default().into(), symbol.size()))
            })
            .collect();
        let text = section.data().expect("the section's bytes").to_vec();
        Code { text, base: section.address(), functions }
    }

    /// All instructions of the one function whose name contains `part`.
    fn function(&self, part: &str) -> Vec<Instruction> {
        let found: Vec<_> =
            self.functions.iter().filter(|(_, (name, _))| name.contains(part)).collect();
        let [(&address, &(_, size))] = found[..] else {
            panic!("{} functions with {part} in their name", found.len());
        };
        let start = (address - self.base) as usize;
        let bytes = &self.text[start..start + size as usize];
        Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).into_iter().collect()
    }

    fn name_at(&self, address: u64) -> &str {
        self.functions.get(&address).map_or("?", |(name, _)| name)
    }
}

/// Why the owner must not execute this, if so.
fn objection(instruction: &Instruction) -> Option<&'static str> {
    let has_memory = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    match instruction.mnemonic() {
        _ if instruction.has_lock_prefix() => Some("locked"),
        Mnemonic::Xchg if has_memory => Some("xchg with memory locks"),
        Mnemonic::Mfence | Mnemonic::Lfence | Mnemonic::Sfence => Some("fence"),
        Mnemonic::Cpuid | Mnemonic::Serialize | Mnemonic::Syscall => Some("serialises"),
        _ => None,
    }
}

/// What can be executed from the function's start without a call: the path of an owner whom nobody disturbs.
fn undisturbed(function: &[Instruction]) -> BTreeSet<u64> {
    let by_address: BTreeMap<u64, &Instruction> = function.iter().map(|i| (i.ip(), i)).collect();
    let (mut todo, mut seen) = (vec![function[0].ip()], BTreeSet::new());
    while let Some(address) = todo.pop() {
        let Some(instruction) = by_address.get(&address) else { continue };
        let flow = instruction.flow_control();
        if matches!(flow, FlowControl::Call | FlowControl::IndirectCall) || !seen.insert(address) {
            continue;
        }
        match flow {
            FlowControl::Next => todo.push(instruction.next_ip()),
            FlowControl::UnconditionalBranch => todo.push(instruction.near_branch_target()),
            FlowControl::ConditionalBranch => {
                todo.extend([instruction.next_ip(), instruction.near_branch_target()]);
            }
            _ => {}
        }
    }
    seen
}

fn check_probe(code: &Code, name: &str) {
    let function = code.function(name);
    let objections: Vec<_> =
        function.iter().filter_map(|i| objection(i).map(|why| format!("{i}: {why}"))).collect();
    assert!(objections.is_empty(), "{name}: {objections:?}");

    // The way through without a call exists, takes the lock, gives it back,
    // and comes to an end.
    let path = undisturbed(&function);
    let on_path = |what: &dyn Fn(&Instruction) -> bool| {
        function.iter().any(|i| path.contains(&i.ip()) && what(i))
    };
    // `busy` goes up by 3 and to 2 more than before; each is stored.
    let adds = |value: u64| {
        move |i: &Instruction| match i.mnemonic() {
            Mnemonic::Lea => i.memory_displacement64() == value,
            Mnemonic::Add => i.op1_kind() != OpKind::Memory && i.immediate(1) == value,
            _ => false,
        }
    };
    assert!(on_path(&adds(3)), "{name}: busy is not made odd without a call");
    assert!(on_path(&adds(2)), "{name}: busy is not made even without a call");
    let stores = function.iter().filter(|i| {
        let store = i.mnemonic() == Mnemonic::Mov && i.op0_kind() == OpKind::Memory;
        path.contains(&i.ip()) && store
    });
    assert!(stores.count() >= 2, "{name}: busy is not stored without a call");
    assert!(on_path(&|i| i.flow_control() == FlowControl::Return), "{name}: does not return");

    // What is called off this path are the lock's own slow ways, and nothing hides behind others.
    for call in function.iter().filter(|i| i.flow_control() == FlowControl::Call) {
        let callee = code.name_at(call.near_branch_target());
        let known = ["lock_otherwise", "back_out", "wake_foreign", "unlock_otherwise", "panic"];
        assert!(known.iter().any(|k| callee.contains(k)), "{name} calls {callee}");
    }
}

#[test]
fn the_owner_executes_no_locked_instruction_and_no_fence() {
    let code = Code::of(&probe());
    check_probe(&code, "owner_path_probe");
    check_probe(&code, "owner_try_path_probe");

    // The second owner in the life of a lock goes out of line; what it executes there is as clean.
    for name in ["12enter_second", "12leave_second"] {
        assert!(code.function(name).iter().all(|i| objection(i).is_none()), "{name}");
    }

    // The check finds such instructions where they are: on the slow ways, which go to the mutex.
    let mutex: Vec<_> =
        code.functions.values().filter(|(name, _)| name.contains("lock_otherwise")).collect();
    let finds = |why| {
        let has = |name: &str| code.function(name).iter().any(|i| objection(i) == Some(why));
        mutex.iter().any(|(name, _)| has(name))
    };
    assert!(finds("locked"), "no locked instruction found in {mutex:?}");
    assert!(finds("xchg with memory locks"), "no xchg found in {mutex:?}");
}
