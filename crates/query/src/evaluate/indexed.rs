//! Conditions that an index answers without reading a column.

use std::collections::BTreeSet;

use saker_model::{Bitmap, DataType, FieldId};
use saker_scalar::{Class, Probe, Relation, ScalarIndex, Step};

use crate::Literal;
use crate::ast::Comparison;
use crate::mixed_set::MixedSet;
use crate::pattern::{Pattern, Rest};
use crate::plan::{ListOperand, Operand, Predicate, Set};

use super::{Chunk, Truth};

/// What an index is asked.
enum Question<'p> {
    Compare(Relation, Probe<'p>),
    AnyOf(&'p Set),
    Contains {
        items: &'p MixedSet,
        all: bool,
    },
    Matches(&'p Pattern),
    /// Of an index of words.
    HasWord(&'p BTreeSet<String>),
}

impl<'a> Chunk<'a> {
    /// The rows for which a condition holds, if indexes can tell without looking at those for which it does not.
    pub(super) fn selected_by_indexes(&self, predicate: &Predicate) -> Option<Bitmap> {
        let join = |items: &[Predicate], join: fn(&mut Bitmap, &Bitmap)| {
            let (first, rest) = items.split_first()?;
            if !items.iter().all(|item| self.index_for(item).is_some()) {
                return None;
            }
            let mut selected = self.selected_by_indexes(first)?;
            for item in rest {
                join(&mut selected, &self.selected_by_indexes(item)?);
            }
            Some(selected)
        };
        match predicate {
            Predicate::And(items) => join(items, Bitmap::and),
            Predicate::Or(items) => join(items, Bitmap::or),
            leaf => {
                let (index, question) = self.index_for(leaf)?;
                Some(question.answer(index))
            }
        }
    }

    /// The answer of an index, if there is one for this condition.
    pub(super) fn looked_up(&self, predicate: &Predicate) -> Option<Truth> {
        let (index, question) = self.index_for(predicate)?;
        let yes = question.answer(index);
        let mut no = yes.clone();
        no.negate();
        if let Some(valid) = index.valid() {
            no.and(valid);
        }
        Some(Truth { yes, no })
    }

    /// The conditions, those first that are answered without reading columns. The result of a chain does not depend on
    /// the order of its parts.
    pub(super) fn indexed_first<'p>(&self, items: &'p [Predicate]) -> impl Iterator<Item = &'p Predicate> {
        let any = !self.source.indexes(self.chunk).is_empty();
        let (first, then): (Vec<_>, Vec<_>) = items.iter().partition(|item| any && self.is_indexed(item));
        first.into_iter().chain(then)
    }

    fn is_indexed(&self, predicate: &Predicate) -> bool {
        match predicate {
            Predicate::Always(_) | Predicate::IsNull(_) => true,
            Predicate::And(items) | Predicate::Or(items) => items.iter().all(|item| self.is_indexed(item)),
            Predicate::Not(inner) => self.is_indexed(inner),
            leaf => self.index_for(leaf).is_some(),
        }
    }

    fn index_for<'p>(&self, predicate: &'p Predicate) -> Option<(&'a ScalarIndex, Question<'p>)> {
        match predicate {
            Predicate::Compare {
                operator,
                left,
                right: Operand::Constant(literal),
            } => {
                let (probe, relation) = (probe_of(literal)?, relation_of(*operator)?);
                let index = self.index_of(left, |covered| covered(probe.class()))?;
                Some((index, Question::Compare(relation, probe)))
            }
            Predicate::In { value, set } => {
                let index = self.index_of(value, |covered| match set {
                    Set::Ints(_) | Set::Floats(_) => covered(Class::Number),
                    Set::Texts(_) => covered(Class::Text),
                    Set::Mixed(set) => set.is_of(covered),
                })?;
                Some((index, Question::AnyOf(set)))
            }
            Predicate::Matches { value, pattern } => {
                // An index of words of a field is cut by the analyzer that its filters are cut by.
                if let (Some(terms), Operand::Column(field, DataType::VarChar)) = (pattern.terms(), value)
                    && let Some(index) = self.index_at(*field, &[], true, |covered| covered(Class::Text))
                {
                    return Some((index, Question::HasWord(terms)));
                }
                let index = self.index_of(value, |covered| covered(Class::Text))?;
                Some((index, Question::Matches(pattern)))
            }
            Predicate::Truth(value) => {
                let index = self.index_of(value, |covered| covered(Class::Bool))?;
                Some((index, Question::Compare(Relation::Equal, Probe::Bool(true))))
            }
            // Whether a JSON value is a list at all, which an empty one asks, is not in an index.
            Predicate::Contains { list, items, all } if items.len() > 0 => {
                let (field, steps): (FieldId, &[Step]) = match list {
                    ListOperand::Array(field) => (*field, &[]),
                    ListOperand::Json(path) => (path.field, &path.steps),
                };
                let index = self.index_at(field, steps, true, |covered| items.is_of(covered))?;
                Some((index, Question::Contains { items, all: *all }))
            }
            Predicate::Always(_)
            | Predicate::And(_)
            | Predicate::Or(_)
            | Predicate::Not(_)
            | Predicate::Compare { .. }
            | Predicate::IsNull(_)
            | Predicate::Exists(_)
            | Predicate::Contains { .. } => None,
        }
    }

    /// An index of a value that has all that is asked for, which `fits` tells from what the index covers.
    fn index_of(&self, value: &Operand, fits: impl Fn(&dyn Fn(Class) -> bool) -> bool) -> Option<&'a ScalarIndex> {
        match value {
            Operand::Column(_, DataType::Array) => None,
            Operand::Column(field, _) => self.index_at(*field, &[], false, fits),
            Operand::Json(path) => self.index_at(path.field, &path.steps, false, fits),
            Operand::Constant(_) | Operand::Element { .. } | Operand::Length(_) | Operand::Arithmetic { .. } => None,
        }
    }

    fn index_at(
        &self,
        field: FieldId,
        steps: &[Step],
        of_elements: bool,
        fits: impl Fn(&dyn Fn(Class) -> bool) -> bool,
    ) -> Option<&'a ScalarIndex> {
        let indexes = self.source.indexes(self.chunk).iter().map(|index| &**index);
        indexes
            .filter(|index| index.rows() == self.rows && index.of_elements() == of_elements)
            .find(|index| index.place().is(field, steps) && fits(&|class| index.covers(class)))
    }
}

impl Question<'_> {
    fn answer(&self, index: &ScalarIndex) -> Bitmap {
        match self {
            Self::Compare(relation, probe) => index.compare(*relation, *probe),
            Self::AnyOf(Set::Ints(values)) => index.any_of(&values.iter().map(|value| Probe::Int(*value))),
            Self::AnyOf(Set::Texts(values)) => index.any_of(&values.iter().map(|text| Probe::Text(text))),
            Self::AnyOf(Set::Floats(bits)) => {
                index.any_of(&bits.iter().map(|bits| Probe::Double(f64::from(f32::from_bits(*bits)))))
            }
            Self::AnyOf(Set::Mixed(set)) => index.any_of(&set.probes()),
            Self::Contains { items, all: false } => index.any_of(&items.probes()),
            Self::Contains { items, all: true } => {
                let mut all = Bitmap::ones(index.rows());
                for probe in items.probes() {
                    all.and(&index.compare(Relation::Equal, probe));
                }
                all
            }
            Self::HasWord(terms) => index.any_of(&terms.iter().map(|word| Probe::Text(word))),
            Self::Matches(pattern) => match pattern.prefix() {
                (text, Rest::Nothing) => index.compare(Relation::Equal, Probe::Text(text)),
                (prefix, Rest::Anything) => index.starting_with(prefix),
                (prefix, Rest::Some) => index.texts_that(prefix, |text| pattern.matches(text)),
            },
        }
    }
}

fn probe_of(literal: &Literal) -> Option<Probe<'_>> {
    match literal {
        Literal::Bool(value) => Some(Probe::Bool(*value)),
        Literal::Int(value) => Some(Probe::Int(*value)),
        Literal::Double(value) => Some(Probe::Double(*value)),
        Literal::Text(text) => Some(Probe::Text(text)),
        Literal::Ints(_) | Literal::List(_) => None,
    }
}

const fn relation_of(operator: Comparison) -> Option<Relation> {
    match operator {
        Comparison::Equal => Some(Relation::Equal),
        // Bound as the opposite of the first.
        Comparison::NotEqual => None,
        Comparison::Less => Some(Relation::Less),
        Comparison::LessOrEqual => Some(Relation::LessOrEqual),
        Comparison::Greater => Some(Relation::Greater),
        Comparison::GreaterOrEqual => Some(Relation::GreaterOrEqual),
    }
}
