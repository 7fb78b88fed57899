//! `text_match`: words to be found in text.

use saker_model::{Column, ColumnData, FieldSchema, RowBatch};

use crate::{FilterError, Templates, bind, evaluate, parse, sample};

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
    let bound = bind(&parse(filter)?, &schema(params), &Templates::default())?;
    let selected = evaluate(&bound, &rows)?;
    Ok((0..rows.rows()).filter(|&row| selected.contains(row)).collect())
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
