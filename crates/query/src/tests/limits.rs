//! Every limit at its value and above it.

use saker_model::Limits;

use super::{select, select_with, templates};
use crate::sample::schema;
use crate::{FilterError, Literal, Templates, bind, parse};

/// On a stack of the size that threads have by default, whatever the test runner gives.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(test)
        .expect("a thread");
    thread.join().expect("the test holds");
}

#[test]
fn length() {
    let limit = Limits::FILTER_BYTES_MAX;
    let text = |bytes: usize| format!("id == 3{}", " ".repeat(bytes - 7));
    assert_eq!(select(&text(limit)), [3]);
    assert_eq!(
        parse(&text(limit + 1)),
        Err(FilterError::TooLong {
            bytes: limit + 1,
            limit
        })
    );
}

/// At each kind of nesting, the deepest filter that is accepted goes through binding and evaluation; one more is refused.
#[test]
fn depth() {
    on_a_small_stack(|| {
        let limit = Limits::FILTER_DEPTH_MAX;
        let wrap = |open: &str, middle: &str, close: &str, count: usize| {
            format!("{}{middle}{}", open.repeat(count), close.repeat(count))
        };
        let cases: [(&str, &str, &str); 8] = [
            ("(", "id == 3", ")"),
            ("not ", "(id == 3)", ""),
            ("(id < 100 and ", "id == 3", ")"),
            ("(id + ", "id", ") == 3"),
            ("-", "id", ""),
            ("[", "1", "]"),
            ("exists ", "color", ""),
            ("array_contains(", "ints", ", 1)"),
        ];
        for (open, middle, close) in cases {
            let mut accepted = 0;
            for count in 1..=limit + 1 {
                let text = wrap(open, middle, close, count);
                match parse(&text) {
                    Ok(expr) => {
                        accepted = count;
                        if let Ok(bound) = bind(&expr, &schema(), &Templates::new()) {
                            crate::evaluate(&bound, &super::rows()).expect("a bound filter answers");
                        }
                    }
                    Err(FilterError::TooDeep { limit: said, .. }) => assert_eq!(said, limit, "{open}"),
                    Err(error) => panic!("{open}: {error}"),
                }
            }
            assert!((limit / 4..=limit).contains(&accepted), "{open} accepted {accepted}");
            assert!(
                matches!(
                    parse(&wrap(open, middle, close, 100_000)),
                    Err(FilterError::TooDeep { .. })
                ),
                "{open}"
            );
        }
        // One pair of parentheses is one level, and the innermost operand of == is one more.
        let exact = |count| parse(&wrap("(", "id == 3", ")", count));
        assert!(exact(limit - 2).is_ok());
        assert!(matches!(exact(limit - 1), Err(FilterError::TooDeep { .. })));
    });
}

#[test]
fn chains_of_arithmetic_are_nested() {
    on_a_small_stack(|| {
        let sum = |terms: usize| format!("{} == 3", vec!["id"; terms].join(" + "));
        let limit = Limits::FILTER_DEPTH_MAX;
        assert!(parse(&sum(limit - 1)).is_ok());
        assert!(matches!(parse(&sum(limit)), Err(FilterError::TooDeep { .. })));
    });
}

#[test]
fn paths() {
    let path = |steps: usize| format!("info{} == 3", "['a']".repeat(steps));
    let limit = Limits::FILTER_DEPTH_MAX;
    assert!(select(&path(limit)).is_empty());
    assert!(matches!(parse(&path(limit + 1)), Err(FilterError::TooDeep { .. })));
}

#[test]
fn conditions() {
    on_a_small_stack(|| {
        let limit = Limits::FILTER_TERMS_MAX;
        let chain = |terms: usize| vec!["id==3"; terms].join(" or ");
        let expr = parse(&chain(limit)).expect("at the limit");
        bind(&expr, &schema(), &Templates::new()).expect("it binds");
        assert_eq!(parse(&chain(limit + 1)), Err(FilterError::TooManyTerms { limit }));
    });
}

#[test]
fn values() {
    let limit = Limits::FILTER_VALUES_MAX;
    let list = |count: usize| {
        let mut text = String::with_capacity(count * 2 + 16);
        text.push_str("id in [");
        for _ in 0..count {
            text.push_str("3,");
        }
        text.push(']');
        text
    };
    assert_eq!(select(&list(limit)), [3]);
    assert_eq!(parse(&list(limit + 1)), Err(FilterError::TooManyValues { limit }));
}

#[test]
fn template_depth() {
    let nested = |depth: usize| (1..depth).fold(Literal::Ints(vec![1]), |inner, _| Literal::List(vec![inner]));
    let limit = Limits::FILTER_DEPTH_MAX;
    assert_eq!(
        select_with("json_contains(info['c'], {x})", &templates([("x", nested(limit))])),
        Ok(vec![])
    );
    let error = select_with("json_contains(info['c'], {x})", &templates([("x", nested(limit + 1))]));
    assert!(matches!(error, Err(FilterError::TooDeep { .. })));
}

#[test]
fn documents_nested_past_the_parser_have_no_values() {
    use saker_model::{Column, ColumnData, RowBatch};
    let document = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).into_bytes();
    let documents = vec![document(127), document(10_000), b"{\"a\"".to_vec()];
    let batch = RowBatch::new(vec![Column::full(crate::sample::INFO, ColumnData::Json(documents))]).unwrap();
    let count = |filter: &str| {
        let bound = bind(&parse(filter).unwrap(), &schema(), &Templates::new()).unwrap();
        crate::evaluate(&bound, &batch).unwrap().iter_ones().collect::<Vec<_>>()
    };
    assert_eq!(count(&format!("info{} == 1", "['a']".repeat(127))), [0]);
    assert_eq!(count(&format!("exists info{}", "['a']".repeat(126))), [0, 1]);
    assert_eq!(count(&format!("exists info{}", "['a']".repeat(128))), [] as [usize; 0]);
    // Skipping needs no depth, so what is not on the path does not matter; a broken document has nothing.
    assert_eq!(count("exists info['a']"), [0, 1]);
    assert_eq!(count("exists info['b']"), [] as [usize; 0]);
}
