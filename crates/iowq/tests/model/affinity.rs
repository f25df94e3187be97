//! CPUs play no part in the model.

pub(crate) fn bind(_tid: i32, _mask: &[u8]) {}

pub(crate) fn allowed() -> Result<Vec<u8>, i32> {
    Ok(vec![1])
}

pub(crate) fn possible() -> &'static [u8] {
    &[1]
}

pub(crate) fn acceptable(_mask: &[u8], _possible: &[u8], _allowed: &[u8]) -> bool {
    true
}
