//! What an index is of.

use saker_model::FieldId;

/// One step of a path into a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value of an object's key.
    Key(String),
    /// The item of a list, from 0.
    Index(usize),
}

/// A field, or a place in the documents of a JSON field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The field.
    pub field: FieldId,
    /// Where in its documents; none for the field itself.
    pub steps: Vec<Step>,
}

impl Place {
    /// A field itself.
    #[must_use]
    pub const fn of(field: FieldId) -> Self {
        Self {
            field,
            steps: Vec::new(),
        }
    }
    /// Whether this is the place.
    #[must_use]
    pub fn is(&self, field: FieldId, steps: &[Step]) -> bool {
        self.field == field && self.steps == steps
    }
}
