//! Functions of a schema that read text, and searches by text.
//!
//! What a function makes of a row is worked out once, when the row is written, and kept in the log and in files like a
//! column that a client sent: so a row keeps its terms, whatever a later version makes of the same text.
//!
//! A search by text is a search by sparse vector: its terms, each weighed by how rare it is among all rows of the
//! collection at that moment. Nothing of that is stored.

use saker_analyzer::Analyzer;
use saker_model::{
    CollectionSchema, Column, ColumnData, FieldId, FieldSchema, FunctionKind, Limits, RowBatch, SparseVector,
};
use saker_segment::{Bm25, TermStatistics};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    engine::Engine,
    error::{Error, ErrorKind, Result},
    types::{AnalyzeRequest, TextToken},
};

/// The functions of a collection, ready to run.
#[derive(Debug)]
pub(crate) struct TextFunctions(Vec<TextFunction>);

#[derive(Debug)]
struct TextFunction {
    input: FieldId,
    output: FieldId,
    /// An error if the collection was made by a version that knows more.
    analyzer: Result<Analyzer>,
}

/// Queries by text as sparse vectors. Wiped on drop.
pub(crate) struct WeighedTexts {
    pub(crate) vectors: Vec<SparseVector>,
    /// Average length of a row, in terms.
    pub(crate) average_length: f64,
}

impl Drop for WeighedTexts {
    fn drop(&mut self) {
        self.vectors.iter_mut().for_each(|vector| vector.pairs_mut().zeroize());
    }
}

/// Checks that there is an analyzer for every field that asks for one.
pub(crate) fn check_analyzers(schema: &CollectionSchema) -> Result<()> {
    let analyzed = schema.fields.iter().filter(|field| field.is_analyzed());
    analyzed.map(analyzer_of).try_for_each(|analyzer| analyzer.map(drop))
}

fn analyzer_of(field: &FieldSchema) -> Result<Analyzer> {
    let name = &field.name;
    if field.type_params.contains_key(MULTI_ANALYZER_PARAMS) {
        return Err(Error::invalid(format!(
            "{MULTI_ANALYZER_PARAMS} of field {name} is not supported; use analyzer_params"
        )));
    }
    let params = field.type_params.get(FieldSchema::ANALYZER_PARAMS);
    Analyzer::from_params(params.map(String::as_str)).map_err(|error| Error::invalid(format!("{error} (field {name})")))
}

impl TextFunctions {
    pub(crate) fn new(schema: &CollectionSchema) -> Self {
        let functions = schema.functions.iter().filter_map(|function| match function.kind {
            FunctionKind::Bm25 => {
                let input = schema.field(function.inputs.first()?)?;
                let output = schema.field(function.outputs.first()?)?;
                Some(TextFunction {
                    input: input.id,
                    output: output.id,
                    analyzer: analyzer_of(input),
                })
            }
        });
        Self(functions.collect())
    }

    /// Bytes of text that [`Self::fill`] reads.
    pub(crate) fn bytes(&self, rows: &RowBatch) -> usize {
        let inputs = self.0.iter().filter_map(|function| rows.column(function.input));
        inputs
            .map(|column| match texts(column) {
                Some(texts) => texts.iter().map(String::len).sum(),
                None => 0,
            })
            .sum()
    }

    /// Puts in what the functions make of the rows, which are complete. A row without text has no terms.
    pub(crate) fn fill(&self, rows: RowBatch) -> Result<RowBatch> {
        if self.0.is_empty() {
            return Ok(rows);
        }
        let mut columns = rows.into_columns();
        for function in &self.0 {
            let analyzer = function.analyzer.as_ref().map_err(Clone::clone)?;
            let input = columns.iter().find(|column| column.field == function.input);
            let (Some(input), Some(texts)) = (input, input.and_then(texts)) else {
                return Err(Error::internal(format!(
                    "rows without text of field {}",
                    function.input
                )));
            };
            let terms = texts.iter().enumerate().map(|(row, text)| {
                if input.is_valid(row) {
                    analyzer.term_frequencies(text)
                } else {
                    SparseVector::default()
                }
            });
            let made = Column::full(function.output, ColumnData::SparseFloatVector { data: terms.collect() });
            match columns.iter_mut().find(|column| column.field == function.output) {
                Some(column) => *column = made,
                None => columns.push(made),
            }
        }
        RowBatch::new(columns).map_err(|error| Error::internal(error.to_string()))
    }

    /// Queries for the output of a function: the terms of each text, weighed by what `statistics` says of them.
    pub(crate) fn weigh(
        &self,
        field: FieldId,
        texts: &[String],
        statistics: impl FnOnce(&[u32]) -> Result<TermStatistics>,
    ) -> Result<WeighedTexts> {
        let function = self.0.iter().find(|function| function.output == field);
        let function = function.ok_or_else(|| Error::internal(format!("no function makes field {field}")))?;
        let analyzer = function.analyzer.as_ref().map_err(Clone::clone)?;
        if let Some(text) = texts.iter().find(|text| text.len() > Limits::VARCHAR_BYTES_MAX) {
            let (length, limit) = (text.len(), Limits::VARCHAR_BYTES_MAX);
            return Err(Error::invalid(format!(
                "the length ({length}) of a text to search by exceeds max length ({limit})"
            )));
        }
        let mut weighed = WeighedTexts {
            vectors: texts.iter().map(|text| analyzer.term_frequencies(text)).collect(),
            average_length: 0.0,
        };
        let all = weighed.vectors.iter().flat_map(|vector| vector.pairs());
        let mut terms: Zeroizing<Vec<u32>> = Zeroizing::new(all.map(|(term, _)| *term).collect());
        terms.sort_unstable();
        terms.dedup();
        let known = statistics(&terms)?;
        if known.rows > 0 {
            #[expect(clippy::cast_precision_loss, reason = "rows are far below 2^52")]
            let rows = known.rows as f64;
            weighed.average_length = known.length / rows;
        }
        for (term, frequency) in weighed.vectors.iter_mut().flat_map(SparseVector::pairs_mut) {
            let place = terms.binary_search(term).ok();
            let rows_with = place.and_then(|place| known.rows_with.get(place)).copied().unwrap_or(0);
            *frequency = Bm25::weight(known.rows, rows_with, *frequency);
        }
        Ok(weighed)
    }
}

fn texts(column: &Column) -> Option<&Vec<String>> {
    if let ColumnData::VarChar(texts) = &column.data {
        Some(texts)
    } else {
        None
    }
}

impl Engine {
    /// What an analyzer makes of texts: for users who try one out. Nothing is stored.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] for parameters that are malformed or texts that are too long;
    /// [`ErrorKind::FieldNotFound`]; a locked zone.
    pub async fn analyze(&self, request: AnalyzeRequest) -> Result<Vec<Vec<TextToken>>> {
        let analyzer = match &request.field {
            None => {
                Analyzer::from_params(request.params.as_deref()).map_err(|error| Error::invalid(error.to_string()))?
            }
            Some(of) => {
                let schema = self.collection_schema(&of.database, &of.collection).await?;
                let shown: String = of.field.chars().take(Limits::NAME_BYTES_MAX).collect();
                let field = schema.field(&of.field).ok_or_else(|| {
                    Error::new(
                        ErrorKind::FieldNotFound,
                        format!("field {shown} not exist in collection"),
                    )
                })?;
                if !field.is_analyzed() {
                    return Err(Error::invalid(format!(
                        "field {shown} has no analyzer; make it with enable_analyzer"
                    )));
                }
                analyzer_of(field)?
            }
        };
        let bytes: usize = request.texts.iter().map(String::len).sum();
        if bytes > ANALYZED_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{bytes} bytes of text in one request, the limit is {ANALYZED_BYTES_MAX}"
            )));
        }
        self.shared
            .compute(move || Ok(request.texts.iter().map(|text| tokens(&analyzer, text)).collect()))
            .await
    }
}

fn tokens(analyzer: &Analyzer, text: &str) -> Vec<TextToken> {
    let mut all = Vec::new();
    analyzer.analyze(text, |token| {
        all.push(TextToken {
            text: token.text.to_owned(),
            start: token.start,
            end: token.end,
            position: token.position,
            hash: saker_analyzer::term_hash(token.text),
        });
    });
    all
}

const MULTI_ANALYZER_PARAMS: &str = "multi_analyzer_params";
/// Most bytes of text that one request has analyzed: an answer is many times as long.
const ANALYZED_BYTES_MAX: usize = 1 << 20;
