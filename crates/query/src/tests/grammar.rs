//! How text is read: precedence, literals, error positions.

use proptest::prelude::*;

use super::{refuse, select, select_with, templates};
use crate::ast::{Arithmetic, Comparison, Expr, ExprKind, Step};
use crate::{FilterError, Literal, Templates, bind, parse};

/// The tree with every operator in parentheses.
fn shape(expr: &Expr) -> String {
    let join = |items: &[Expr], between: &str| items.iter().map(shape).collect::<Vec<_>>().join(between);
    match &expr.kind {
        ExprKind::Everything => "everything".into(),
        ExprKind::Literal(literal) => literal_shape(literal),
        ExprKind::Template(name) => format!("{{{name}}}"),
        ExprKind::List(items) => format!("[{}]", join(items, ", ")),
        ExprKind::Path { name, steps } => {
            let step = |step: &Step| match step {
                Step::Key(key) => format!("[{key:?}]"),
                Step::Index(index) => format!("[{index}]"),
            };
            format!("{name}{}", steps.iter().map(step).collect::<String>())
        }
        ExprKind::Negate(inner) => format!("(-{})", shape(inner)),
        ExprKind::Not(inner) => format!("(not {})", shape(inner)),
        ExprKind::Arithmetic { operator, left, right } => {
            let operator = match operator {
                Arithmetic::Add => "+",
                Arithmetic::Subtract => "-",
                Arithmetic::Multiply => "*",
                Arithmetic::Divide => "/",
                Arithmetic::Modulo => "%",
                Arithmetic::Power => "**",
            };
            format!("({} {operator} {})", shape(left), shape(right))
        }
        ExprKind::Compare { operator, left, right } => {
            format!("({} {} {})", shape(left), comparison(*operator), shape(right))
        }
        ExprKind::Between {
            left,
            left_operator,
            value,
            right_operator,
            right,
        } => format!(
            "({} {} {} {} {})",
            shape(left),
            comparison(*left_operator),
            shape(value),
            comparison(*right_operator),
            shape(right)
        ),
        ExprKind::In { value, list, negated } => {
            format!(
                "({} {} {})",
                shape(value),
                if *negated { "not in" } else { "in" },
                shape(list)
            )
        }
        ExprKind::Like { value, pattern } => format!("({} like {})", shape(value), shape(pattern)),
        ExprKind::Regex {
            value,
            pattern,
            negated,
        } => {
            format!(
                "({} {} {})",
                shape(value),
                if *negated { "!~" } else { "=~" },
                shape(pattern)
            )
        }
        ExprKind::IsNull { value, negated } => {
            format!("({} is {}null)", shape(value), if *negated { "not " } else { "" })
        }
        ExprKind::Exists(inner) => format!("(exists {})", shape(inner)),
        ExprKind::And(items) => format!("({})", join(items, " and ")),
        ExprKind::Or(items) => format!("({})", join(items, " or ")),
        ExprKind::Call { function, arguments } => format!("{function:?}({})", join(arguments, ", ")),
    }
}

fn comparison(operator: Comparison) -> &'static str {
    match operator {
        Comparison::Equal => "==",
        Comparison::NotEqual => "!=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn literal_shape(literal: &Literal) -> String {
    match literal {
        Literal::Bool(value) => value.to_string(),
        Literal::Int(value) => value.to_string(),
        Literal::Double(value) => format!("{value:?}"),
        Literal::Text(value) => format!("{value:?}"),
        Literal::Ints(values) => format!("{values:?}"),
        Literal::List(items) => format!("[{}]", items.iter().map(literal_shape).collect::<Vec<_>>().join(", ")),
    }
}

#[test]
fn precedence() {
    for (text, expected) in [
        ("a or b and c", "(a or (b and c))"),
        ("a and b or c and d", "((a and b) or (c and d))"),
        ("a or b or c", "(a or b or c)"),
        ("a && b || c", "((a and b) or c)"),
        ("not a and b", "((not a) and b)"),
        ("not a == 1", "(not (a == 1))"),
        ("!a == 1 and b", "((not (a == 1)) and b)"),
        ("not not a", "(not (not a))"),
        ("a and not b or c", "((a and (not b)) or c)"),
        ("not a in [1]", "(not (a in [1]))"),
        ("a == b < c", "(a == (b < c))"),
        ("a < b == c", "((a < b) == c)"),
        ("a == 1 and b != 2", "((a == 1) and (b != 2))"),
        ("a + 1 in [1]", "((a + 1) in [1])"),
        ("a not in [1] and b", "((a not in [1]) and b)"),
        ("a like 'x' and b", "((a like \"x\") and b)"),
        ("a not like 'x'", "(not (a like \"x\"))"),
        ("a =~ 'x' or a !~ 'y'", "((a =~ \"x\") or (a !~ \"y\"))"),
        ("a is null and b is not null", "((a is null) and (b is not null))"),
        ("not a is null", "(not (a is null))"),
        ("a + b * c", "(a + (b * c))"),
        ("a * b + c", "((a * b) + c)"),
        ("a - b - c", "((a - b) - c)"),
        ("a / b * c % d", "(((a / b) * c) % d)"),
        ("a ** b ** c", "((a ** b) ** c)"),
        ("a * b ** c", "(a * (b ** c))"),
        ("-a ** 2", "(-(a ** 2))"),
        ("-a * b", "((-a) * b)"),
        ("a ** -b * c", "((a ** (-b)) * c)"),
        ("+a - +b", "(a - b)"),
        ("a - -1", "(a - -1)"),
        ("a-1", "(a - 1)"),
        ("- - a", "(-(-a))"),
        ("a < b + 1", "(a < (b + 1))"),
        ("1 < a <= 5", "(1 < a <= 5)"),
        ("5 >= a + 1 > b and c", "((5 >= (a + 1) > b) and c)"),
        ("1 < a < 5 == true", "((1 < a < 5) == true)"),
        ("exists a['x'] and b", "((exists a[\"x\"]) and b)"),
        ("exists(a)", "(exists a)"),
        ("(a or b) and c", "((a or b) and c)"),
        ("exists == 1", "(exists == 1)"),
        ("is is null", "(is is null)"),
        (
            "array_contains(a, 1 + 1) and ARRAY_LENGTH(b) > 0",
            "(Contains(a, (1 + 1)) and (ArrayLength(b) > 0))",
        ),
        (
            "json_contains_all(a['b'], [1, [2]],)",
            "ContainsAll(a[\"b\"], [1, [2]])",
        ),
        ("a[\"b\"]['c'][0] == 1", "(a[\"b\"][\"c\"][0] == 1)"),
        ("$meta['x'] == {name}", "($meta[\"x\"] == {name})"),
        ("a in {list} AND NOT b", "((a in {list}) and (not b))"),
        ("a IN [1] OR a NOT IN [2]", "((a in [1]) or (a not in [2]))"),
        ("a LIKE 'x' AND a IS NOT NULL", "((a like \"x\") and (a is not null))"),
        ("  ", "everything"),
        ("a\t==\r\n1", "(a == 1)"),
    ] {
        match parse(text) {
            Ok(expr) => assert_eq!(shape(&expr), expected, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn literals() {
    for (text, expected) in [
        ("0", "0"),
        ("42", "42"),
        ("0x1F", "31"),
        ("0Xff", "255"),
        ("017", "15"),
        ("0b101", "5"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("-5", "-5"),
        ("1.5", "1.5"),
        ("1.", "1.0"),
        (".5", "0.5"),
        ("1e3", "1000.0"),
        ("1.5E-3", "0.0015"),
        ("2e+2", "200.0"),
        ("-0.25", "-0.25"),
        ("007.5", "7.5"),
        ("true", "true"),
        ("True", "true"),
        ("TRUE", "true"),
        ("false", "false"),
        ("False", "false"),
        ("FALSE", "false"),
        ("'it'", "\"it\""),
        ("\"it's\"", "\"it's\""),
        (r"'it\'s'", "\"it's\""),
        (r"'\n\t\\\x41\101\u00e9\U0001F600'", r#""\n\t\\AAé😀""#),
        (r"'\xc3\xa9'", "\"é\""),
        (r"'50\%'", r#""50\\%""#),
        (r"'\é'", r#""\\é""#),
        (r#"r"a\n\"b""#, r#""a\\n\\\"b""#),
        (r"R'\d+'", r#""\\d+""#),
        ("u8'x'", "\"x\""),
        ("'\\\n'", "\"\""),
        ("'日本'", "\"日本\""),
        ("[]", "[]"),
        ("[ 1, 2, ]", "[1, 2]"),
        ("[1, -2]", "[1, -2]"),
        ("[1, 2.5, 'x', true, [1]]", "[1, 2.5, \"x\", true, [1]]"),
        ("[1, 2 + 3]", "[1, (2 + 3)]"),
        ("[{a}, 1]", "[{a}, 1]"),
    ] {
        match parse(text) {
            Ok(expr) => assert_eq!(shape(&expr), expected, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn errors_say_where() {
    for (text, position, reason) in [
        ("age ==", 6, "expected a value, found end of the filter"),
        ("age == == 1", 7, "expected a value, found '=='"),
        ("age = 1", 4, "'=' is not an operator, use '=='"),
        ("age == 1 2", 9, "expected an operator or the end, found a number"),
        ("(age == 1", 9, "expected ')', found end of the filter"),
        ("age == 1)", 8, "expected an operator or the end, found ')'"),
        ("age in [1", 9, "expected ',' or ']', found end of the filter"),
        ("age in [1 2]", 10, "expected ',' or ']', found a number"),
        ("age in [,]", 8, "expected a value, found ','"),
        ("name == 'abc", 8, "a string is not closed"),
        ("name == r'abc\\'", 9, "a string is not closed"),
        ("name == '\\xzz'", 9, "\\x needs hexadecimal digits"),
        ("name == '\\u12'", 9, "not a Unicode escape"),
        ("name == '\\ud800'", 9, "not a Unicode escape"),
        ("name == '\\777'", 9, "octal escape out of range"),
        ("name == '\\xff'", 8, "a string's escapes are not valid UTF-8"),
        ("age == 12abc", 7, "not a number"),
        ("age == 08", 7, "not a number"),
        ("age == 0x", 7, "not a number"),
        ("age == 1.2.3", 7, "not a number"),
        ("age == 1e", 7, "a float needs digits after its exponent sign"),
        ("age == 1e999", 7, "float out of range"),
        ("age == 9223372036854775808", 7, "integer out of the 64-bit range"),
        ("age == -9223372036854775809", 8, "integer out of the 64-bit range"),
        ("age # 1", 4, "unexpected character"),
        ("$other == 1", 0, "'$' must be followed by 'meta'"),
        ("$meta2 == 1", 0, "'$' must be followed by 'meta'"),
        ("age not 1", 8, "expected 'in' or 'like' after 'not', found a number"),
        ("age is 1", 7, "expected 'null', found a number"),
        (
            "1 < age > 3",
            8,
            "the two comparisons of a range must point the same way",
        ),
        ("info[a] == 1", 5, "expected a quoted key or an index, found a name"),
        ("info['a' == 1", 9, "expected ']', found '=='"),
        ("{} == 1", 1, "expected a template's name, found '}'"),
        ("age == and", 7, "expected a value, found 'and'"),
        ("nosuch(age)", 0, "function nosuch not found"),
        ("array_length()", 0, "array_length takes 1 arguments, found 0"),
        ("array_contains(ints)", 0, "array_contains takes 2 arguments, found 1"),
        (
            "array_contains(ints, 1, 2)",
            0,
            "array_contains takes 2 arguments, found 3",
        ),
        ("日 == 1", 0, "unexpected character"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(
            error,
            FilterError::Syntax {
                position,
                reason: reason.to_owned()
            },
            "{text}"
        );
    }
    assert_eq!(
        refuse("age = 1"),
        "cannot parse expression: '=' is not an operator, use '==' at byte 4"
    );
}

#[test]
fn what_is_not_there_is_said() {
    for (text, position, what) in [
        ("age == 1 and PHRASE_MATCH(name, 'x')", 13, "the function phrase_match"),
        ("random_sample(0.1)", 0, "the function random_sample"),
        ("ST_CONTAINS(name, 'x')", 0, "the function st_contains"),
        ("age & 1 == 1", 4, "the bitwise operator '&'"),
        ("age | 1 == 1", 4, "the bitwise operator '|'"),
        ("age ^ 1 == 1", 4, "the bitwise operator '^'"),
        ("age << 1 == 1", 4, "the bitwise operator '<<'"),
        ("age >> 1 == 1", 4, "the bitwise operator '>>'"),
        ("~age == 1", 0, "the bitwise operator '~'"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(
            error,
            FilterError::NotSupported {
                what: what.to_owned(),
                position
            },
            "{text}"
        );
    }
    assert!(refuse("vector == 1").contains("a filter on vector field vector is not supported"));
}

#[test]
fn unknown_fields_are_named() {
    let mut schema = crate::sample::schema();
    schema.fields.retain(|field| !field.is_dynamic);
    let error = |filter: &str| {
        bind(&parse(filter).unwrap(), &schema, &Templates::new())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error("age == 1 and color == 2"),
        "cannot parse expression: field color not exist"
    );
    assert_eq!(
        error("$meta['color'] == 2"),
        "cannot parse expression: field $meta not exist"
    );
    let long = "x".repeat(1_000);
    assert!(error(&format!("{long} == 1")).len() < 320);
}

#[test]
fn operands_must_fit() {
    for (filter, part) in [
        ("age == 'x'", "cannot compare an integer with a string, at byte 0"),
        ("name > 1", "cannot compare a string with an integer"),
        ("age == name", "cannot compare an integer with a string"),
        ("flag == 1", "cannot compare a boolean with an integer"),
        ("flag > true", "booleans can be compared with == and != only"),
        ("info['a'] < [1]", "lists can be compared with == and != only"),
        ("ints == ['x']", "cannot compare an array with a list"),
        ("ints == ints", "cannot compare an array with an array"),
        ("age", "predicate is not a boolean expression, but an integer"),
        ("1 + 1", "predicate is not a boolean expression, but an integer"),
        (
            "(age == 1) == (tiny == 1)",
            "the result of a condition cannot be an operand",
        ),
        ("(age == 1) + 1 == 2", "the result of a condition cannot be an operand"),
        ("name + 1 == 2", "arithmetic needs numbers, found a string"),
        ("age + 'x' == 2", "arithmetic needs numbers, found a string"),
        ("age + true == 2", "arithmetic needs numbers, found a boolean"),
        ("-name == 2", "arithmetic needs numbers, found a string"),
        ("age in 5", "the right operand of 'in' must be a list"),
        ("age in tiny", "the right operand of 'in' must be a constant"),
        ("age in ['x']", "a list that an integer is looked up in holds a string"),
        (
            "name in ['x', 1]",
            "a list that a string is looked up in holds an integer",
        ),
        ("ints in [1]", "'in' is not supported on an array, use array_contains"),
        ("age like 'x'", "like operation on non-string is unsupported"),
        ("name like age", "a pattern must be a constant"),
        ("name like 5", "a pattern must be a string"),
        ("name =~ '('", "invalid regular expression"),
        ("age[0] == 1", "field age of type Int64 cannot be indexed"),
        ("ints['x'] == 1", "field ints of type Array takes one integer index"),
        ("ints[0][0] == 1", "field ints of type Array takes one integer index"),
        (
            "exists age",
            "exists operations are only supported on a JSON field's path",
        ),
        ("1 is null", "'is null' needs a field or a JSON path"),
        ("ints[0] is null", "'is null' needs a field or a JSON path"),
        (
            "array_contains(age, 1)",
            "the first argument must be an array field or a JSON path",
        ),
        ("array_contains(ints, 'x')", "the values do not fit an array of Int64"),
        ("array_contains_all(ints, 1)", "the second argument must be a list"),
        ("array_contains(ints, age)", "the second argument must be a constant"),
        (
            "array_length(name) > 1",
            "the first argument must be an array field or a JSON path",
        ),
        ("age / 0 == 1", "division by zero"),
        ("age % 0 == 1", "division by zero"),
        ("price / 0.0 == 1", "division by zero"),
        ("1 / 0 == 1", "division by zero"),
        ("1 % 0 == 1", "division by zero"),
        ("9223372036854775807 + 1 == 1", "integer overflow in a constant"),
        ("2 ** 63 == 1", "integer overflow in a constant"),
        ("1e300 * 1e300 == 1", "float overflow in a constant"),
        ("1 == 'x'", "cannot compare an integer with a string"),
    ] {
        let message = refuse(filter);
        assert!(message.contains(part), "{filter}: {message}");
    }
}

#[test]
fn templates_stand_for_values() {
    let values = templates([
        ("n", Literal::Int(20)),
        ("f", Literal::Double(0.5)),
        ("t", Literal::Text("bob".into())),
        ("b", Literal::Bool(false)),
        ("ints", Literal::Ints(vec![1, 3])),
        ("mixed", Literal::List(vec![Literal::Int(2), Literal::Int(3)])),
        (
            "texts",
            Literal::List(vec![Literal::Text("ann".into()), Literal::Text("bob".into())]),
        ),
        ("nan", Literal::Double(f64::NAN)),
    ]);
    let select = |filter: &str| select_with(filter, &values);
    assert_eq!(
        select("age == {n} and price == {f} and name == {t} and flag == {b}"),
        Ok(vec![2])
    );
    assert_eq!(select("id in {ints}"), Ok(vec![1, 3]));
    assert_eq!(select("id in {mixed}"), Ok(vec![2, 3]));
    assert_eq!(select("id in [{n}, 5]"), Ok(vec![5]));
    assert_eq!(select("name in {texts}"), Ok(vec![1, 2]));
    assert_eq!(select("array_contains_any(tags, {texts})"), Ok(vec![]));
    assert_eq!(select("age == {n} + 10"), Ok(vec![3]));
    assert!(
        select("price == {nan}")
            .unwrap_err()
            .to_string()
            .contains("is not a number or infinity")
    );
    let missing = select("age == {other}").unwrap_err().to_string();
    assert_eq!(
        missing,
        "cannot parse expression: the value of expression template variable name {other} is not found"
    );
    assert!(
        select("age == {t}")
            .unwrap_err()
            .to_string()
            .contains("cannot compare an integer with a string")
    );
}

#[test]
fn escapes_reach_the_value() {
    assert_eq!(select(r#"name == "é\"\\""#), [5]);
    assert_eq!(select(r#"name == 'é"\\'"#), [5]);
    assert_eq!(select(r"name == '\u00e9\x22\134'"), [5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_text_of_the_language_panics(words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..30)) {
        let text = words.concat();
        if let Ok(expr) = parse(&text) {
            let values = templates([("t", Literal::Ints(vec![1])), ("u", Literal::Text("x".into()))]);
            if let Ok(bound) = bind(&expr, &crate::sample::schema(), &values) {
                crate::evaluate(&bound, &super::rows()).expect("a bound filter answers on its own schema");
            }
        }
    }
}

/// Pieces that make likely filters when put together.
const WORDS: [&str; 62] = [
    "age",
    "tiny",
    "score",
    "price",
    "name",
    "flag",
    "info",
    "ints",
    "tags",
    "vector",
    "color",
    "$meta",
    "['a']",
    "[0]",
    "[\"c\"]",
    " and ",
    " or ",
    " not ",
    "!",
    " in ",
    " like ",
    " is null",
    " is not null",
    "exists ",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "=~",
    "!~",
    "+",
    "-",
    "*",
    "/",
    "%",
    "**",
    "(",
    ")",
    "[",
    "]",
    ",",
    "1",
    "0",
    "2.5",
    "9223372036854775807",
    "-9223372036854775808",
    "'x'",
    "'%x_'",
    "\"\\",
    "true",
    "{t}",
    "{u}",
    "array_contains(",
    "json_contains_all(",
    "array_length(",
    "array_contains_any(",
    "0x",
    "1e",
    "r'",
    "\u{e9}",
];
