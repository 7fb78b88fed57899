//! What filters select.

use super::{refuse, select};

#[track_caller]
fn table(cases: &[(&str, &[i64])]) {
    for (filter, expected) in cases {
        assert_eq!(select(filter), *expected, "{filter}");
    }
}

#[test]
fn everything() {
    table(&[
        ("", &[1, 2, 3, 4, 5, 6]),
        ("  \n", &[1, 2, 3, 4, 5, 6]),
        ("true", &[1, 2, 3, 4, 5, 6]),
        ("1 == 1.0", &[1, 2, 3, 4, 5, 6]),
        ("'a' < 'b' and 2 ** 3 == 8", &[1, 2, 3, 4, 5, 6]),
        ("false", &[]),
        ("1 > 2", &[]),
        ("3 in [1, 2]", &[]),
        ("'abc' like 'a%'", &[1, 2, 3, 4, 5, 6]),
    ]);
}

#[test]
fn comparisons() {
    table(&[
        ("age == 20", &[2]),
        ("age != 20", &[1, 3, 4, 5]),
        ("age < 20", &[1, 4]),
        ("age <= 20", &[1, 2, 4]),
        ("age > 20", &[3, 5]),
        ("age >= 20", &[2, 3, 5]),
        ("20 > age", &[1, 4]),
        ("20 == age", &[2]),
        ("10 <= age < 30", &[1, 2]),
        ("30 > age >= 10", &[1, 2]),
        ("id < age <= 20", &[1, 2]),
        ("age == 9223372036854775807", &[5]),
        ("tiny == -128", &[5]),
        ("tiny > 1000", &[]),
        ("tiny < 1000", &[1, 2, 3, 4, 5]),
        ("name == 'bob'", &[2]),
        ("name >= 'ann'", &[1, 2, 5]),
        ("name < \"b\"", &[1, 3, 4]),
        ("flag", &[1, 3, 5]),
        ("not flag", &[2, 4]),
        ("flag == false", &[2, 4]),
        ("flag != false", &[1, 3, 5]),
        ("age > tiny", &[1, 2, 3, 5]),
        ("price == score", &[2]),
        ("tiny < price", &[1, 3, 4, 5]),
        ("price < age", &[1, 2, 3, 5]),
    ]);
}

#[test]
fn integers_and_floats_compare_exactly() {
    table(&[
        ("age == 10.0", &[1]),
        ("age == 10.5", &[]),
        ("age != 10.5", &[1, 2, 3, 4, 5]),
        ("age < 10.5", &[1, 4]),
        ("age <= 10.5", &[1, 4]),
        ("age > 10.5", &[2, 3, 5]),
        ("age >= 10.5", &[2, 3, 5]),
        ("age > -5.5", &[1, 2, 3, 4, 5]),
        ("age < -4.5", &[4]),
        ("age < 1e300", &[1, 2, 3, 4, 5]),
        ("age > 1e300", &[]),
        ("age > -1e300", &[1, 2, 3, 4, 5]),
        ("age == 9223372036854775808.0", &[]),
        ("age < 9223372036854775808.0", &[1, 2, 3, 4, 5]),
        ("not (age == 10.5)", &[1, 2, 3, 4, 5]),
        ("price == 1", &[3]),
        ("price > 9223372036854775807", &[4]),
        ("score == 16777217", &[]),
        ("score == 16777216", &[4]),
        ("score < 16777217", &[1, 2, 3, 4, 5]),
    ]);
}

#[test]
fn thirty_two_bit_floats_meet_rounded_constants() {
    table(&[
        ("score == 0.1", &[1]),
        ("score in [0.1, 1.5]", &[1, 5]),
        ("score in [0, 16777217]", &[3]),
        ("score <= 0.1", &[1, 3]),
        ("score < 0.1", &[3]),
        ("score == 0.0", &[3]),
        ("score == -0.0", &[3]),
        ("price == 0.1", &[1]),
        ("score == price", &[2]),
        // Arithmetic is in 64 bits, where the stored 0.1 is not the constant 0.1.
        ("score + 0 == 0.1", &[]),
    ]);
}

#[test]
fn arithmetic() {
    table(&[
        ("age + 1 == 11", &[1]),
        ("1 + age == 11", &[1]),
        ("age - 5 == 5", &[1]),
        ("age * 2 == 40", &[2]),
        ("age / 4 == 2", &[1]),
        ("age / 2 == -2", &[4]),
        ("age % 7 == 6", &[2]),
        ("age % 3 == -2", &[4]),
        ("age ** 2 == 25", &[4]),
        ("2 ** id == 8", &[3]),
        ("id ** -1 == 0.5", &[2]),
        ("-age == 5", &[4]),
        ("-age < -20", &[3, 5]),
        ("age + tiny * 2 == 22", &[2]),
        ("price * 2 == 1", &[2]),
        ("price / 0.5 == 1.0", &[2]),
        ("price % 1 == -0.5", &[5]),
        ("age + 0.5 == 10.5", &[1]),
        ("age in [10 + 0, 2 * 10]", &[1, 2]),
        ("age + 10 in [30]", &[2]),
        ("age == 5 * 2 ** 2", &[2]),
        ("age == 7 / 2 + 7", &[1]),
        ("price == 7 / 2.0 - 2.5", &[3]),
        ("-tiny == 128", &[5]),
    ]);
}

#[test]
fn what_cannot_be_computed_matches_neither_way() {
    table(&[
        ("age + 1 > 0", &[1, 2, 3]),
        ("not (age + 1 > 0)", &[4]),
        ("age * 9223372036854775807 != 0", &[]),
        ("-(age - 9223372036854775807 - 2) > 0", &[1, 2, 3, 5]),
        ("10 / tiny == 10", &[2]),
        ("10 / tiny != 10", &[3, 4, 5]),
        ("10 % tiny == 0", &[2, 3]),
        ("not (10 % tiny == 0)", &[4, 5]),
        ("1.0 / tiny > 0.0 or 1.0 / tiny <= 0.0", &[2, 3, 4, 5]),
    ]);
}

#[test]
fn lists() {
    table(&[
        ("age in [10, 30, 99]", &[1, 3]),
        ("age not in [10, 30, 99]", &[2, 4, 5]),
        ("not (age in [10])", &[2, 3, 4, 5]),
        ("age in []", &[]),
        ("age not in []", &[1, 2, 3, 4, 5]),
        ("age in [10.0, 20.5]", &[1]),
        ("tiny in [-128, 127]", &[4, 5]),
        ("name in ['bob', 'ann', 'bob']", &[1, 2]),
        ("name not in [\"bob\"]", &[1, 3, 4, 5]),
        ("flag in [true]", &[1, 3, 5]),
        ("price in [1, 0.5]", &[2, 3]),
        ("info['a'] in [1, 'z']", &[1, 2]),
        ("info['a'] in ['1', 2]", &[3, 4]),
        ("info['c'] in [[1, 2, 3], 4]", &[1, 4]),
    ]);
}

#[test]
fn patterns() {
    table(&[
        ("name like 'a%'", &[1, 4]),
        ("name like '%b'", &[2]),
        ("name like '%o%'", &[2]),
        ("name like 'a_n'", &[1]),
        ("name like '___'", &[1, 2, 3, 4, 5]),
        ("name like '%'", &[1, 2, 3, 4, 5]),
        (r"name like '50\%'", &[3]),
        (r"name like r'50\%'", &[3]),
        (r"name like 'a\_c'", &[4]),
        ("name not like 'a%'", &[2, 3, 5]),
        ("not (name like 'a%')", &[2, 3, 5]),
        ("name like 'bob'", &[2]),
        ("name =~ '^a.*[nc]$'", &[1, 4]),
        ("name =~ 'O'", &[]),
        ("name =~ '(?i)O'", &[2]),
        ("name !~ 'a'", &[2, 3, 5]),
        ("tags[0] like 'x%'", &[1, 4]),
        ("info['b'] like '_'", &[1, 2]),
        ("info['b'] not like 'x'", &[2, 3, 4, 5]),
        ("info['b'] !~ 'x'", &[2, 3, 4, 5]),
        ("info['a'] like '1'", &[3]),
        ("color like 'r%'", &[1]),
    ]);
}

#[test]
fn nulls_match_neither_a_condition_nor_its_negation() {
    for condition in [
        "age == 0",
        "age in [0]",
        "age > tiny",
        "age + 1 == 1",
        "name like '%'",
        "flag",
        "ints[0] == 1",
        "array_contains(ints, 1)",
        "array_length(ints) == 0",
        "info['a'] == 1",
        "price == 0 and score == 0",
        "price == 0 or score == 0",
    ] {
        let both = format!("({condition}) or not ({condition})");
        assert!(!select(&both).contains(&6), "{condition}");
    }
    table(&[
        ("age is null", &[6]),
        ("age is not null", &[1, 2, 3, 4, 5]),
        ("info is null", &[6]),
        ("ints is null", &[6]),
        ("id is null", &[]),
        ("$meta is not null", &[1, 2, 3, 4, 5, 6]),
        ("not (age is null)", &[1, 2, 3, 4, 5]),
    ]);
}

/// `id == 6` is the row whose `age` is null; true, false and unknown in each place.
#[test]
fn conditions_have_three_values() {
    for (left, right, and, or) in [
        ("id == 6", "id == 6", true, true),
        ("id == 6", "id != 6", false, true),
        ("id != 6", "id != 6", false, false),
        ("id == 6", "age == 1", false, true),
        ("age == 1", "id == 6", false, true),
        ("id != 6", "age == 1", false, false),
        ("age == 1", "age == 1", false, false),
    ] {
        assert_eq!(
            select(&format!("({left}) and ({right})")).contains(&6),
            and,
            "{left} and {right}"
        );
        assert_eq!(
            select(&format!("({left}) or ({right})")).contains(&6),
            or,
            "{left} or {right}"
        );
    }
    // Negated: false becomes true, unknown stays unknown.
    table(&[
        ("id == 6 and not (id != 6 and age == 1)", &[6]),
        ("id == 6 and not (id == 6 and age == 1)", &[]),
        ("id == 6 and not (id == 6 or age == 1)", &[]),
        ("id == 6 and not (id != 6 or age == 1)", &[]),
    ]);
}

#[test]
fn json_paths() {
    table(&[
        ("info['a'] == 1", &[1, 2]),
        ("info['a'] == 1.0", &[1, 2]),
        ("info[\"a\"] == '1'", &[3]),
        ("info['a'] > 1", &[4]),
        ("info['a'] >= 1", &[1, 2, 4]),
        ("1 <= info['a'] < 2", &[1, 2]),
        ("info['b'] == 'x'", &[1]),
        ("info['b'] < 'y'", &[1]),
        ("info['d']['e'] == true", &[1]),
        ("info['d']['e']", &[1]),
        ("info['d'][1] == 7", &[3]),
        ("info['d'][0]['e'] == 5", &[3]),
        ("info['c'][0] == 1", &[1]),
        ("info['c'][9] == 1", &[]),
        ("info['c'] == [1, 2, 3]", &[1]),
        ("info['c'] == []", &[3]),
        ("info['c'] == ['x', [1, 2], 2.5]", &[2]),
        ("info == 7", &[5]),
        ("info['a'] + 1 == 2", &[1, 2]),
        ("info['a'] * 2 > age", &[4]),
        ("info['a'] == id", &[1]),
        ("info['a'] == info['d'][9]", &[]),
        ("info['a'] == info['a']", &[1, 2, 3, 4]),
        ("info['nothing'] == 1", &[]),
    ]);
}

#[test]
fn absent_json_values_are_unequal() {
    table(&[
        // Missing, null, or of another kind: not equal, so `!=`, `not` and `not in` select the row.
        ("info['a'] != 1", &[3, 4, 5]),
        ("not (info['a'] == 1)", &[3, 4, 5]),
        ("info['a'] not in [1]", &[3, 4, 5]),
        ("info['b'] != 'x'", &[2, 3, 4, 5]),
        ("info['b'] < 'x' or info['b'] >= 'x'", &[1, 2]),
        ("not (info['d']['e'])", &[2, 3, 4, 5]),
        ("info['a'] + 1 != 2", &[3, 4, 5]),
    ]);
}

#[test]
fn presence() {
    table(&[
        ("exists info['a']", &[1, 2, 3, 4]),
        ("exists info['b']", &[1, 2]),
        ("exists info['d']['e']", &[1, 2]),
        ("exists info['c'][0]", &[1, 2]),
        ("not exists info['a']", &[5, 6]),
        ("exists color", &[1, 2]),
        ("exists deep", &[4]),
        ("exists deep['list']", &[4]),
        ("info['b'] is null", &[3, 4, 5, 6]),
        ("info['b'] is not null", &[1, 2]),
        ("color is null", &[3, 4, 5, 6]),
    ]);
}

#[test]
fn dynamic_fields() {
    table(&[
        ("color == 'red'", &[1]),
        ("$meta['color'] == 'red'", &[1]),
        ("$meta[\"deep\"][\"list\"][1] == 20", &[4]),
        ("deep['list'][0] == 10", &[4]),
        ("size > 5", &[2]),
        ("size == 'big'", &[3]),
        ("color != 'red'", &[2, 3, 4, 5, 6]),
        ("color in ['red', 'blue']", &[1, 2]),
        ("array_length(deep['list']) == 2", &[4]),
        ("json_contains(deep['list'], 20)", &[4]),
    ]);
}

#[test]
fn arrays() {
    table(&[
        ("ints[0] == 1", &[1]),
        ("ints[1] == 2", &[1, 4]),
        ("ints[1] != 2", &[5]),
        ("not (ints[1] == 2)", &[5]),
        ("ints[99] == 2", &[]),
        ("ints[0] + ints[1] == 3", &[1]),
        ("ints[0] in [1, 7]", &[1, 5]),
        ("tags[0] == 'x'", &[1, 4]),
        ("ints == [1, 2, 3]", &[1]),
        ("ints == []", &[3]),
        ("ints != []", &[1, 2, 4, 5]),
        ("tags == ['x', 'y']", &[1]),
        ("array_length(ints) == 0", &[3]),
        ("ARRAY_LENGTH(ints) >= 2", &[1, 4, 5]),
        ("array_length(ints) + 1 == 2", &[2]),
        ("array_length(info['c']) == 3", &[1, 2]),
        ("array_length(info['c']) != 3", &[3, 4, 5]),
    ]);
}

#[test]
fn containment() {
    table(&[
        ("array_contains(ints, 2)", &[1, 4]),
        ("ARRAY_CONTAINS(ints, 2.0)", &[1, 4]),
        ("not array_contains(ints, 2)", &[2, 3, 5]),
        ("array_contains(tags, 'x')", &[1, 4]),
        ("array_contains_all(ints, [1, 2, 2])", &[1]),
        ("ARRAY_CONTAINS_ALL(ints, [7])", &[5]),
        ("array_contains_all(ints, [])", &[1, 2, 3, 4, 5]),
        ("array_contains_any(ints, [3, 7])", &[1, 2, 5]),
        ("ARRAY_CONTAINS_ANY(tags, ['z', 'x'])", &[1, 4, 5]),
        ("array_contains_any(ints, [])", &[]),
        ("json_contains(ints, 2)", &[1, 4]),
        ("json_contains(info['c'], 2)", &[1]),
        ("JSON_CONTAINS(info['c'], [1, 2])", &[2]),
        ("json_contains(info['c'], [1.0, 2])", &[2]),
        ("json_contains(info['c'], 'x')", &[2]),
        ("not json_contains(info['c'], 'x')", &[1, 3, 4, 5]),
        ("json_contains_all(info['c'], [3, 1])", &[1]),
        ("JSON_CONTAINS_ALL(info['c'], ['x', 2.5, [1, 2]])", &[2]),
        ("json_contains_any(info['c'], [2.5, 3])", &[1, 2]),
        ("JSON_CONTAINS_ANY(info['c'], ['nothing'])", &[]),
        ("json_contains_all(info['c'], [])", &[1, 2, 3]),
    ]);
}

#[test]
fn combinations() {
    table(&[
        ("age > 5 and flag or name == 'bob'", &[1, 2, 3, 5]),
        ("age > 5 && (flag || name == 'bob')", &[1, 2, 3, 5]),
        ("AGE > 5", &[]),
        ("!(age > 5)", &[4]),
        ("not not flag", &[1, 3, 5]),
        ("id in [1, 2, 3] and id not in [2] and id != 3", &[1]),
    ]);
    assert!(refuse("age > 5 And flag").contains("expected an operator or the end, found a name at byte 8"));
}
