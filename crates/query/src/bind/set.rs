//! `in` lists as sorted sets of the type they are looked up with.

use crate::mixed_set::MixedSet;
use crate::number::whole;
use crate::plan::Set;
use crate::{FilterError, Literal};

use super::{Kind, mismatch};

/// The set of a list's values, for values of this kind. A number that no value of the kind can equal is left out.
pub(super) fn build(position: usize, kind: Kind, list: Literal) -> Result<Set, FilterError> {
    let list = match (kind, list) {
        (Kind::Int, Literal::Ints(values)) => return Ok(Set::ints(values)),
        (Kind::Array(_), _) => return mismatch(position, "'in' is not supported on an array, use array_contains"),
        (_, list) => list,
    };
    let items = list.into_items().unwrap_or_default();
    if let Some(wrong) = items.iter().find(|item| !kind.takes(item)) {
        let reason = format!("a list that {} is looked up in holds {}", kind.name(), wrong.kind());
        return mismatch(position, reason);
    }
    Ok(match kind {
        Kind::Int => Set::ints(items.iter().filter_map(as_int).collect()),
        Kind::Text => Set::texts(items.into_iter().filter_map(as_text).collect()),
        Kind::Float => Set::floats(items.iter().filter_map(as_single)),
        Kind::Bool | Kind::Double | Kind::Json | Kind::Array(_) => Set::Mixed(Box::new(MixedSet::new(items))),
    })
}

fn as_int(literal: &Literal) -> Option<i64> {
    match literal {
        Literal::Int(value) => Some(*value),
        Literal::Double(value) => whole(*value),
        Literal::Bool(_) | Literal::Text(_) | Literal::Ints(_) | Literal::List(_) => None,
    }
}

fn as_text(literal: Literal) -> Option<String> {
    if let Literal::Text(text) = literal {
        Some(text)
    } else {
        None
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "checked by turning it back"
)]
fn as_single(literal: &Literal) -> Option<f32> {
    match literal {
        Literal::Int(value) => {
            let single = *value as f32;
            (whole(f64::from(single)) == Some(*value)).then_some(single)
        }
        Literal::Double(value) => Some(*value as f32),
        Literal::Bool(_) | Literal::Text(_) | Literal::Ints(_) | Literal::List(_) => None,
    }
}
