//! `text_match`: words to be found in text.

use std::sync::Arc;

use saker_model::{Bitmap, Column, ColumnData, FieldId, FieldSchema, RowBatch};
use saker_scalar::ScalarIndex;

use crate::{ColumnSource, FilterError, IndexTarget, Templates, bind, evaluate, parse, sample};

fn schema(params: &[(&str, &str)]) -> saker_model::CollectionSchema {
    let mut schema = sample::schema();
    let name = schema.fields.iter_mut().find(|field| field.id == sample::NAME).unwrap();
    name.type_params = params
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    schema
}

fn found(filter: &str, params: &[(&str, &str)]) -> Result<Vec<usize>, FilterError> {
    let texts = ["The falcon hunts", "hawks, hunting", "", "nothing", "Falcons"].map(str::to_owned);
    let rows = RowBatch::new(vec![Column::full(sample::NAME, ColumnData::VarChar(texts.to_vec()))]).unwrap();
    let schema = schema(params);
    let bound = bind(&parse(filter)?, &schema, &Templates::default())?;
    let selected = evaluate(&bound, &rows)?;
    let field = schema.field_by_id(sample::NAME).unwrap();
    let index = IndexTarget::of_words(field)
        .unwrap()
        .build(rows.column(sample::NAME), rows.rows());
    let indexes = WordsOnly(rows.rows(), [Arc::new(index.unwrap())]);
    assert_eq!(
        evaluate(&bound, &indexes)?,
        selected,
        "{filter}: the index says otherwise"
    );
    Ok((0..rows.rows()).filter(|&row| selected.contains(row)).collect())
}

/// Rows of which only the index of words is there.
struct WordsOnly(usize, [Arc<ScalarIndex>; 1]);

impl ColumnSource for WordsOnly {
    fn chunk_rows(&self, _chunk: usize) -> usize {
        self.0
    }
    fn column(&self, _chunk: usize, _field: FieldId) -> Option<&Column> {
        panic!("a column was read")
    }
    fn indexes(&self, _chunk: usize) -> &[Arc<ScalarIndex>] {
        &self.1
    }
}

const PLAIN: &[(&str, &str)] = &[("enable_analyzer", "true"), ("enable_match", "true")];

#[test]
fn any_of_the_words_is_enough() {
    let english = &[PLAIN[0], PLAIN[1], ("analyzer_params", r#"{"type": "english"}"#)];
    assert_eq!(found("text_match(name, 'FALCON hawk')", PLAIN).unwrap(), [0]);
    assert_eq!(found("TEXT_MATCH(name, 'falcon hawk')", english).unwrap(), [0, 1, 4]);
    assert_eq!(found("not text_match(name, 'hunt')", english).unwrap(), [2, 3, 4]);
    assert_eq!(found("text_match(name, 'the')", english).unwrap(), [0_usize; 0]);
    assert_eq!(found("text_match(name, '')", PLAIN).unwrap(), [0_usize; 0]);
    assert_eq!(
        found("text_match(name, 'hunting') or text_match(name, 'nothing')", PLAIN).unwrap(),
        [1, 3]
    );
}

#[test]
fn an_index_of_words_knows_nulls_and_leaves_whole_texts_to_others() {
    let schema = schema(PLAIN);
    let field = schema.field_by_id(sample::NAME).unwrap();
    let texts: Vec<String> = (0..300)
        .map(|row| format!("row{} all odd{} all", row % 7, row % 2))
        .collect();
    let mut column = Column::full(sample::NAME, ColumnData::VarChar(texts));
    column.validity = Some(Bitmap::from_bools((0..300).map(|row| row % 5 != 0)));
    let index = IndexTarget::of_words(field).unwrap().build(Some(&column), 300).unwrap();
    assert_eq!(index.distinct(), 7 + 2 + 1);
    let saved = ScalarIndex::from_bytes(&index.to_bytes(), sample::NAME, 300).unwrap();
    let indexes = WordsOnly(300, [Arc::new(saved)]);
    let rows = RowBatch::new(vec![column]).unwrap();
    for filter in [
        "text_match(name, 'all')",
        "text_match(name, 'ROW3, row5')",
        "not text_match(name, 'odd1')",
        "text_match(name, 'row2') and text_match(name, 'odd0')",
        "text_match(name, 'nowhere')",
    ] {
        let bound = bind(&parse(filter).unwrap(), &schema, &Templates::default()).unwrap();
        let selected = evaluate(&bound, &indexes).unwrap();
        assert_eq!(selected, evaluate(&bound, &rows).unwrap(), "{filter}");
        assert!(!selected.contains(0), "{filter}: null has no words and lacks none");
    }
    // Only words are in it: whole texts, and patterns, are not looked up there.
    for filter in ["name == 'all'", "name like 'all%'", "name in ['all']"] {
        let bound = bind(&parse(filter).unwrap(), &schema, &Templates::default()).unwrap();
        let source = Both(&rows, &indexes);
        assert_eq!(evaluate(&bound, &source).unwrap().count_ones(), 0, "{filter}");
    }
    assert!(IndexTarget::of_words(sample::schema().field_by_id(sample::NAME).unwrap()).is_none());
}

/// Rows and an index of their words.
struct Both<'a>(&'a RowBatch, &'a WordsOnly);

impl ColumnSource for Both<'_> {
    fn chunk_rows(&self, _chunk: usize) -> usize {
        self.0.rows()
    }
    fn column(&self, _chunk: usize, field: FieldId) -> Option<&Column> {
        self.0.column(field)
    }
    fn indexes(&self, chunk: usize) -> &[Arc<ScalarIndex>] {
        self.1.indexes(chunk)
    }
}

#[test]
fn fields_have_to_allow_it() {
    let refused = |filter: &str, params, part: &str| {
        let message = found(filter, params).unwrap_err().to_string();
        assert!(message.contains(part), "{message} lacks {part}");
    };
    refused("text_match(name, 'x')", &[], "field \"name\" does not enable match");
    refused("text_match(name, 'x')", &PLAIN[1..], "does not enable match");
    refused(
        "text_match(age, 'x')",
        PLAIN,
        "text_match operation on non-string is unsupported",
    );
    refused(
        "text_match(info, 'x')",
        PLAIN,
        "text_match operation on non-string is unsupported",
    );
    refused("text_match(name, 3)", PLAIN, "must be a string");
    refused("text_match(name)", PLAIN, "takes 2 arguments, found 1");
    let long = format!("text_match(name, '{}')", "x".repeat(4_097));
    refused(&long, PLAIN, "4096");
    let params = &[PLAIN[0], PLAIN[1], (FieldSchema::ANALYZER_PARAMS, "{")];
    refused("text_match(name, 'x')", params, "invalid analyzer params");
}
