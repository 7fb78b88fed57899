//! Tokens into an expression, by precedence climbing.
//!
//! Precedence, loosest first: `or`, `and`, `not`, `== !=`, `< <= > >=`, `in` `like` `=~` `is null`, `+ -`, `* / %`, unary
//! `+ -`, `**`. All binary operators group to the left. Milvus's grammar puts `not` above comparisons; there `not a == 1`
//! is an error, so nothing that Milvus accepts changes its meaning here.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a grammar names what may come next and refuses the rest"
)]

use saker_model::{CollectionSchema, Limits};

use crate::ast::{Arithmetic, Comparison, Expr, ExprKind, Function, Step};
use crate::lexer::{Lexer, Token, TokenKind};
use crate::{FilterError, Literal};

/// Reads Milvus's boolean expression language. An empty or blank text selects every row.
///
/// # Errors
/// [`FilterError`] with the byte position of the first fault, or the limit that the text is over: its length, how deep
/// operators, parentheses and lists stand inside each other, how many values it lists.
pub fn parse(text: &str) -> Result<Expr, FilterError> {
    if text.len() > Limits::FILTER_BYTES_MAX {
        return Err(FilterError::TooLong {
            bytes: text.len(),
            limit: Limits::FILTER_BYTES_MAX,
        });
    }
    let mut parser = Parser::new(text)?;
    if parser.token.kind == TokenKind::End {
        return Ok(Expr {
            position: 0,
            kind: ExprKind::Everything,
        });
    }
    let (expr, _) = parser.expression(OR)?;
    match parser.token.kind {
        TokenKind::End => Ok(expr),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

/// An expression and how deep it is: 1 for a leaf.
type Deep = (Expr, usize);

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    ahead: Option<Token>,
    /// Calls of `expression` that are under way.
    depth: usize,
    values: usize,
    terms: usize,
}

/// A binary operator as found in the text.
#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Or,
    And,
    Compare(Comparison),
    In { negated: bool },
    Like { negated: bool },
    Regex { negated: bool },
    Is,
    Arithmetic(Arithmetic),
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, FilterError> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next()?;
        Ok(Self {
            lexer,
            token,
            ahead: None,
            depth: 0,
            values: 0,
            terms: 0,
        })
    }

    fn advance(&mut self) -> Result<Token, FilterError> {
        let next = match self.ahead.take() {
            Some(token) => token,
            None => self.lexer.next()?,
        };
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn peek(&mut self) -> Result<&TokenKind, FilterError> {
        if self.ahead.is_none() {
            self.ahead = Some(self.lexer.next()?);
        }
        Ok(self.ahead.as_ref().map_or(&TokenKind::End, |token| &token.kind))
    }

    fn unexpected(&self, wanted: &str) -> FilterError {
        let reason = format!("expected {wanted}, found {}", self.token.kind.describe());
        FilterError::Syntax {
            position: self.token.position,
            reason,
        }
    }

    fn at(&self, symbol: &str) -> bool {
        matches!(self.token.kind, TokenKind::Symbol(found) if found == symbol)
    }

    fn at_word(&self, words: &[&str]) -> bool {
        matches!(&self.token.kind, TokenKind::Word(found) if words.contains(&found.as_str()))
    }

    fn take(&mut self, symbol: &str) -> Result<(), FilterError> {
        if !self.at(symbol) {
            return Err(self.unexpected(&format!("'{symbol}'")));
        }
        self.advance().map(drop)
    }

    fn check_depth(&self, depth: usize, position: usize) -> Result<(), FilterError> {
        if depth > Limits::FILTER_DEPTH_MAX {
            return Err(FilterError::TooDeep {
                position,
                limit: Limits::FILTER_DEPTH_MAX,
            });
        }
        Ok(())
    }

    fn count_value(&mut self) -> Result<(), FilterError> {
        self.values += 1;
        if self.values > Limits::FILTER_VALUES_MAX {
            return Err(FilterError::TooManyValues {
                limit: Limits::FILTER_VALUES_MAX,
            });
        }
        Ok(())
    }

    /// An expression of operators that bind at least as tightly as `level`.
    fn expression(&mut self, level: u8) -> Result<Deep, FilterError> {
        self.depth += 1;
        self.check_depth(self.depth, self.token.position)?;
        let mut left = self.prefix()?;
        while let Some(operator) = self.operator()? {
            let binds = operator.level();
            if binds < level {
                break;
            }
            left = self.infix(left, operator)?;
            self.check_depth(left.1, left.0.position)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    /// The binary operator at the current token, which is not consumed.
    fn operator(&mut self) -> Result<Option<Operator>, FilterError> {
        let operator = match &self.token.kind {
            TokenKind::Symbol(symbol) => match *symbol {
                "||" => Operator::Or,
                "&&" => Operator::And,
                "==" => Operator::Compare(Comparison::Equal),
                "!=" => Operator::Compare(Comparison::NotEqual),
                "<" => Operator::Compare(Comparison::Less),
                "<=" => Operator::Compare(Comparison::LessOrEqual),
                ">" => Operator::Compare(Comparison::Greater),
                ">=" => Operator::Compare(Comparison::GreaterOrEqual),
                "=~" => Operator::Regex { negated: false },
                "!~" => Operator::Regex { negated: true },
                "+" => Operator::Arithmetic(Arithmetic::Add),
                "-" => Operator::Arithmetic(Arithmetic::Subtract),
                "*" => Operator::Arithmetic(Arithmetic::Multiply),
                "/" => Operator::Arithmetic(Arithmetic::Divide),
                "%" => Operator::Arithmetic(Arithmetic::Modulo),
                "**" => Operator::Arithmetic(Arithmetic::Power),
                "&" | "|" | "^" | "<<" | ">>" => {
                    let what = format!("the bitwise operator '{symbol}'");
                    return Err(FilterError::NotSupported {
                        what,
                        position: self.token.position,
                    });
                }
                "=" => {
                    let reason = "'=' is not an operator, use '=='".to_owned();
                    return Err(FilterError::Syntax {
                        position: self.token.position,
                        reason,
                    });
                }
                _ => return Ok(None),
            },
            TokenKind::Word(word) => match word.as_str() {
                "or" | "OR" => Operator::Or,
                "and" | "AND" => Operator::And,
                "in" | "IN" => Operator::In { negated: false },
                "like" | "LIKE" => Operator::Like { negated: false },
                "is" | "IS" => Operator::Is,
                "not" | "NOT" => match self.peek()? {
                    TokenKind::Word(next) if matches!(next.as_str(), "in" | "IN") => Operator::In { negated: true },
                    TokenKind::Word(next) if matches!(next.as_str(), "like" | "LIKE") => {
                        Operator::Like { negated: true }
                    }
                    _ => {
                        self.advance()?;
                        return Err(self.unexpected("'in' or 'like' after 'not'"));
                    }
                },
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(operator))
    }

    fn infix(&mut self, left: Deep, operator: Operator) -> Result<Deep, FilterError> {
        let position = left.0.position;
        match operator {
            Operator::Or | Operator::And => return self.chain(left, operator),
            Operator::Compare(comparison) => return self.comparison(left, comparison),
            Operator::Is => return self.is_null(left),
            Operator::In { negated: true } | Operator::Like { negated: true } => {
                self.advance()?;
            }
            Operator::In { .. } | Operator::Like { .. } | Operator::Regex { .. } | Operator::Arithmetic(_) => {}
        }
        self.advance()?;
        let right = self.expression(operator.level() + 1)?;
        let depth = 1 + left.1.max(right.1);
        let (left, right) = (Box::new(left.0), Box::new(right.0));
        let kind = match operator {
            Operator::In { negated } => ExprKind::In {
                value: left,
                list: right,
                negated,
            },
            Operator::Like { negated } => {
                let like = ExprKind::Like {
                    value: left,
                    pattern: right,
                };
                if negated {
                    ExprKind::Not(Box::new(Expr { position, kind: like }))
                } else {
                    like
                }
            }
            Operator::Regex { negated } => ExprKind::Regex {
                value: left,
                pattern: right,
                negated,
            },
            Operator::Arithmetic(operator) => ExprKind::Arithmetic { operator, left, right },
            Operator::Or | Operator::And | Operator::Compare(_) | Operator::Is => return Ok((*left, depth)),
        };
        Ok((Expr { position, kind }, depth))
    }

    /// `a and b and c` as one flat node.
    fn chain(&mut self, first: Deep, operator: Operator) -> Result<Deep, FilterError> {
        let position = first.0.position;
        let mut depth = first.1;
        let mut items = vec![first.0];
        while self.operator()? == Some(operator) {
            self.advance()?;
            self.terms += 1;
            if self.terms >= Limits::FILTER_TERMS_MAX {
                return Err(FilterError::TooManyTerms {
                    limit: Limits::FILTER_TERMS_MAX,
                });
            }
            let (item, item_depth) = self.expression(operator.level() + 1)?;
            depth = depth.max(item_depth);
            items.push(item);
        }
        let kind = if operator == Operator::Or {
            ExprKind::Or(items)
        } else {
            ExprKind::And(items)
        };
        Ok((Expr { position, kind }, 1 + depth))
    }

    /// `a < b`, or the range `a < b <= c`.
    fn comparison(&mut self, left: Deep, operator: Comparison) -> Result<Deep, FilterError> {
        let position = left.0.position;
        self.advance()?;
        let middle = self.expression(Operator::Compare(operator).level() + 1)?;
        let mut depth = 1 + left.1.max(middle.1);
        let (left, middle) = (Box::new(left.0), Box::new(middle.0));
        let second = match self.operator()? {
            Some(Operator::Compare(second)) if direction(operator) != 0 && direction(second) != 0 => second,
            _ => {
                return Ok((
                    Expr {
                        position,
                        kind: ExprKind::Compare {
                            operator,
                            left,
                            right: middle,
                        },
                    },
                    depth,
                ));
            }
        };
        if direction(second) != direction(operator) {
            let reason = "the two comparisons of a range must point the same way".to_owned();
            return Err(FilterError::Syntax {
                position: self.token.position,
                reason,
            });
        }
        self.advance()?;
        let right = self.expression(Operator::Compare(second).level() + 1)?;
        depth = depth.max(1 + right.1);
        let kind = ExprKind::Between {
            left,
            left_operator: operator,
            value: middle,
            right_operator: second,
            right: Box::new(right.0),
        };
        // One level more, as binding makes two comparisons and an `and` of it.
        Ok((Expr { position, kind }, depth + 1))
    }

    fn is_null(&mut self, value: Deep) -> Result<Deep, FilterError> {
        self.advance()?;
        let negated = self.at_word(&["not", "NOT"]);
        if negated {
            self.advance()?;
        }
        if !self.at_word(&["null", "NULL"]) {
            return Err(self.unexpected("'null'"));
        }
        self.advance()?;
        let position = value.0.position;
        Ok((
            Expr {
                position,
                kind: ExprKind::IsNull {
                    value: Box::new(value.0),
                    negated,
                },
            },
            1 + value.1,
        ))
    }

    fn prefix(&mut self) -> Result<Deep, FilterError> {
        let position = self.token.position;
        match &self.token.kind {
            TokenKind::Symbol("!") => self.negation(),
            TokenKind::Word(word) if matches!(word.as_str(), "not" | "NOT") => self.negation(),
            TokenKind::Symbol("+") => {
                self.advance()?;
                self.expression(UNARY)
            }
            TokenKind::Symbol("-") => self.minus(),
            TokenKind::Symbol("~") => Err(FilterError::NotSupported {
                what: "the bitwise operator '~'".to_owned(),
                position,
            }),
            TokenKind::Symbol("(") => {
                self.advance()?;
                let (inner, depth) = self.expression(OR)?;
                self.take(")")?;
                Ok((inner, depth))
            }
            TokenKind::Symbol("[") => self.list(),
            TokenKind::Symbol("{") => self.template(),
            TokenKind::Word(_) => self.word(),
            TokenKind::Meta => {
                self.advance()?;
                self.path(position, CollectionSchema::DYNAMIC_FIELD_NAME.to_owned())
            }
            TokenKind::Int(_) | TokenKind::Double(_) | TokenKind::Text(_) => self.literal(),
            TokenKind::End | TokenKind::Symbol(_) => Err(self.unexpected("a value")),
        }
    }

    fn negation(&mut self) -> Result<Deep, FilterError> {
        let position = self.advance()?.position;
        let (inner, depth) = self.expression(NOT)?;
        Ok((
            Expr {
                position,
                kind: ExprKind::Not(Box::new(inner)),
            },
            1 + depth,
        ))
    }

    fn minus(&mut self) -> Result<Deep, FilterError> {
        let position = self.advance()?.position;
        // The smallest integer has no positive twin, so it cannot be read as a negated literal.
        if self.token.kind == TokenKind::Int(1 << 63) {
            self.advance()?;
            self.count_value()?;
            return Ok((
                Expr {
                    position,
                    kind: ExprKind::Literal(Literal::Int(i64::MIN)),
                },
                1,
            ));
        }
        let (inner, depth) = self.expression(UNARY)?;
        let kind = match inner.kind {
            ExprKind::Literal(Literal::Int(value)) if value != i64::MIN => ExprKind::Literal(Literal::Int(-value)),
            ExprKind::Literal(Literal::Double(value)) => ExprKind::Literal(Literal::Double(-value)),
            kind => ExprKind::Negate(Box::new(Expr {
                position: inner.position,
                kind,
            })),
        };
        Ok((Expr { position, kind }, 1 + depth))
    }

    fn literal(&mut self) -> Result<Deep, FilterError> {
        self.count_value()?;
        let Token { position, kind } = self.advance()?;
        let literal = match kind {
            TokenKind::Int(size) => match i64::try_from(size) {
                Ok(value) => Literal::Int(value),
                Err(_) => {
                    let reason = "integer out of the 64-bit range".to_owned();
                    return Err(FilterError::Syntax { position, reason });
                }
            },
            TokenKind::Double(value) => Literal::Double(value),
            TokenKind::Text(text) => Literal::Text(text),
            TokenKind::End | TokenKind::Word(_) | TokenKind::Meta | TokenKind::Symbol(_) => {
                return Err(self.unexpected("a value"));
            }
        };
        Ok((
            Expr {
                position,
                kind: ExprKind::Literal(literal),
            },
            1,
        ))
    }

    /// `[a, b, ...]`. Whole numbers, the common long list, never become one node each.
    fn list(&mut self) -> Result<Deep, FilterError> {
        let position = self.advance()?.position;
        let mut ints = Vec::new();
        while let TokenKind::Int(size) = self.token.kind {
            let Ok(value) = i64::try_from(size) else { break };
            if !matches!(self.peek()?, TokenKind::Symbol("," | "]")) {
                break;
            }
            self.count_value()?;
            ints.push(value);
            self.advance()?;
            if self.at(",") {
                self.advance()?;
            }
        }
        if self.at("]") {
            self.advance()?;
            return Ok((
                Expr {
                    position,
                    kind: ExprKind::Literal(Literal::Ints(ints)),
                },
                1,
            ));
        }
        let mut depth = 1;
        let mut literals: Vec<Literal> = ints.into_iter().map(Literal::Int).collect();
        let mut others: Vec<Expr> = Vec::new();
        loop {
            let (item, item_depth) = self.expression(OR)?;
            depth = depth.max(1 + item_depth);
            match item.kind {
                ExprKind::Literal(literal) if others.is_empty() => literals.push(literal),
                _ => {
                    let literal = |value| Expr {
                        position,
                        kind: ExprKind::Literal(value),
                    };
                    others.extend(std::mem::take(&mut literals).into_iter().map(literal));
                    others.push(item);
                }
            }
            if self.at(",") {
                self.advance()?;
            } else if !self.at("]") {
                return Err(self.unexpected("',' or ']'"));
            }
            if self.at("]") {
                self.advance()?;
                break;
            }
        }
        let kind = if others.is_empty() {
            ExprKind::Literal(list_literal(literals))
        } else {
            ExprKind::List(others)
        };
        Ok((Expr { position, kind }, depth))
    }

    fn template(&mut self) -> Result<Deep, FilterError> {
        let position = self.advance()?.position;
        let TokenKind::Word(name) = &self.token.kind else {
            return Err(self.unexpected("a template's name"));
        };
        let name = name.clone();
        self.advance()?;
        self.take("}")?;
        Ok((
            Expr {
                position,
                kind: ExprKind::Template(name),
            },
            1,
        ))
    }

    /// A keyword that starts an expression, a function call, or a field.
    fn word(&mut self) -> Result<Deep, FilterError> {
        let Token {
            position,
            kind: TokenKind::Word(word),
        } = self.advance()?
        else {
            return Err(self.unexpected("a name"));
        };
        let literal = match word.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            "and" | "AND" | "or" | "OR" | "in" | "IN" | "like" | "LIKE" => {
                let reason = format!("expected a value, found '{}'", word.to_ascii_lowercase());
                return Err(FilterError::Syntax { position, reason });
            }
            _ => None,
        };
        if let Some(value) = literal {
            self.count_value()?;
            return Ok((
                Expr {
                    position,
                    kind: ExprKind::Literal(Literal::Bool(value)),
                },
                1,
            ));
        }
        let starts_value = matches!(
            self.token.kind,
            TokenKind::Word(_) | TokenKind::Meta | TokenKind::Symbol("(")
        );
        if matches!(word.as_str(), "exists" | "EXISTS") && starts_value {
            let (inner, depth) = self.expression(UNARY)?;
            return Ok((
                Expr {
                    position,
                    kind: ExprKind::Exists(Box::new(inner)),
                },
                1 + depth,
            ));
        }
        if self.at("(") {
            return self.call(position, &word);
        }
        self.path(position, word)
    }

    fn call(&mut self, position: usize, name: &str) -> Result<Deep, FilterError> {
        let Some(function) = function(name) else {
            let lower = name.to_ascii_lowercase();
            if KNOWN_FUNCTIONS.contains(&lower.as_str()) || lower.starts_with("st_") {
                let what = format!("the function {}", cut_name(&lower));
                return Err(FilterError::NotSupported { what, position });
            }
            let reason = format!("function {} not found", cut_name(name));
            return Err(FilterError::Syntax { position, reason });
        };
        self.take("(")?;
        let mut arguments = Vec::new();
        let mut depth = 1;
        while !self.at(")") {
            let (argument, argument_depth) = self.expression(OR)?;
            depth = depth.max(1 + argument_depth);
            arguments.push(argument);
            if self.at(",") {
                self.advance()?;
            } else if !self.at(")") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        self.advance()?;
        let wanted = if function == Function::ArrayLength { 1 } else { 2 };
        if arguments.len() != wanted {
            let reason = format!("{} takes {wanted} arguments, found {}", cut_name(name), arguments.len());
            return Err(FilterError::Syntax { position, reason });
        }
        Ok((
            Expr {
                position,
                kind: ExprKind::Call { function, arguments },
            },
            depth,
        ))
    }

    /// What follows a name: `["key"]` and `[0]`, any number of them up to the depth limit.
    fn path(&mut self, position: usize, name: String) -> Result<Deep, FilterError> {
        let mut steps = Vec::new();
        while self.at("[") {
            self.check_depth(steps.len() + 1, self.token.position)?;
            self.advance()?;
            steps.push(match &self.token.kind {
                TokenKind::Text(key) => Step::Key(key.clone()),
                TokenKind::Int(index) => Step::Index(usize::try_from(*index).unwrap_or(usize::MAX)),
                _ => return Err(self.unexpected("a quoted key or an index")),
            });
            self.advance()?;
            self.take("]")?;
        }
        Ok((
            Expr {
                position,
                kind: ExprKind::Path { name, steps },
            },
            1,
        ))
    }
}

impl Operator {
    const fn level(self) -> u8 {
        match self {
            Self::Or => OR,
            Self::And => AND,
            Self::Compare(Comparison::Equal | Comparison::NotEqual) => EQUALITY,
            Self::Compare(_) => ORDER,
            Self::In { .. } | Self::Like { .. } | Self::Regex { .. } | Self::Is => MATCH,
            Self::Arithmetic(Arithmetic::Add | Arithmetic::Subtract) => SUM,
            Self::Arithmetic(Arithmetic::Multiply | Arithmetic::Divide | Arithmetic::Modulo) => PRODUCT,
            Self::Arithmetic(Arithmetic::Power) => POWER,
        }
    }
}

/// 1 for less, -1 for greater, 0 for equality.
const fn direction(operator: Comparison) -> i8 {
    match operator {
        Comparison::Less | Comparison::LessOrEqual => 1,
        Comparison::Greater | Comparison::GreaterOrEqual => -1,
        Comparison::Equal | Comparison::NotEqual => 0,
    }
}

/// Lower or upper case, as Milvus takes them.
fn function(name: &str) -> Option<Function> {
    Some(match name {
        "json_contains" | "JSON_CONTAINS" | "array_contains" | "ARRAY_CONTAINS" => Function::Contains,
        "json_contains_all" | "JSON_CONTAINS_ALL" | "array_contains_all" | "ARRAY_CONTAINS_ALL" => {
            Function::ContainsAll
        }
        "json_contains_any" | "JSON_CONTAINS_ANY" | "array_contains_any" | "ARRAY_CONTAINS_ANY" => {
            Function::ContainsAny
        }
        "array_length" | "ARRAY_LENGTH" => Function::ArrayLength,
        "text_match" | "TEXT_MATCH" => Function::TextMatch,
        _ => return None,
    })
}

/// A name short enough for a message.
pub(crate) fn cut_name(name: &str) -> &str {
    let mut end = name.len().min(Limits::NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Literals as a list literal, in the compact form if all are whole numbers.
pub(crate) fn list_literal(items: Vec<Literal>) -> Literal {
    let ints: Option<Vec<i64>> = items
        .iter()
        .map(|item| {
            if let Literal::Int(value) = item {
                Some(*value)
            } else {
                None
            }
        })
        .collect();
    ints.map_or(Literal::List(items), Literal::Ints)
}

const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const EQUALITY: u8 = 4;
const ORDER: u8 = 5;
const MATCH: u8 = 6;
const SUM: u8 = 7;
const PRODUCT: u8 = 8;
const UNARY: u8 = 9;
const POWER: u8 = 10;

/// Functions of Milvus that are refused by name rather than as unknown.
const KNOWN_FUNCTIONS: [&str; 9] = [
    "phrase_match",
    "random_sample",
    "element_filter",
    "match_all",
    "match_any",
    "match_least",
    "match_most",
    "match_exact",
    "bloom_match",
];
