//! Numbers: decimal, with as many digits as go-cty's 512 bits hold.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr as _;

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, RoundingMode, ToPrimitive as _, Zero as _};

/// The digits that results keep.
const DIGITS: u64 = 154;

/// The most digits in front of the point, and behind it. Numbers beyond are refused, as their texts would have no bound.
const RANGE: i64 = 4096;

/// A number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(BigDecimal);

impl From<i64> for Number {
    fn from(number: i64) -> Number {
        Number(BigDecimal::from(number))
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Number {
        Number(BigDecimal::from(number as u64))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

impl Number {
    fn checked(number: &BigDecimal) -> Result<Number, String> {
        let places = NonZeroU64::new(DIGITS).expect("the constant is not zero");
        let rounded = if number.digits() > DIGITS {
            number.with_precision_round(places, RoundingMode::HalfEven)
        } else {
            number.clone()
        };
        let number = rounded.normalized();
        let (_, scale) = number.as_bigint_and_exponent();
        if scale.abs() > RANGE {
            return Err("the number is out of range".to_owned());
        }
        Ok(Number(number))
    }

    /// Reads a decimal number.
    ///
    /// # Errors
    /// The text is no number, or the number is out of range.
    pub(crate) fn parse(text: &str) -> Result<Number, String> {
        if text.len() > usize::try_from(RANGE).unwrap_or(usize::MAX)
            || text.starts_with('+')
            || text.contains('_')
        {
            return Err("a number is required".to_owned());
        }
        let number = BigDecimal::from_str(text).map_err(|_| "a number is required".to_owned())?;
        Number::checked(&number)
    }

    /// The nearest number to `number`.
    ///
    /// # Errors
    /// It is not finite.
    pub(crate) fn from_f64(number: f64) -> Result<Number, String> {
        if !number.is_finite() {
            return Err("the number is out of range".to_owned());
        }
        Number::parse(&format!("{number}"))
    }

    /// The nearest 64-bit number.
    pub(crate) fn to_f64(&self) -> f64 {
        self.0.to_f64().unwrap_or(f64::NAN)
    }

    /// The whole number, if it is one.
    pub(crate) fn to_i64(&self) -> Option<i64> {
        if self.0.is_integer() { self.0.to_i64() } else { None }
    }

    /// The whole number of any size, if it is one.
    pub(crate) fn to_big(&self) -> Option<BigInt> {
        self.0.is_integer().then(|| self.0.with_scale(0).into_bigint_and_exponent().0)
    }

    /// Of a whole number of any size.
    ///
    /// # Errors
    /// It is out of range.
    pub(crate) fn from_big(number: BigInt) -> Result<Number, String> {
        Number::checked(&BigDecimal::from(number))
    }

    /// About the bytes that it takes when it is written out.
    pub(crate) fn weight(&self) -> usize {
        let (_, scale) = self.0.as_bigint_and_exponent();
        usize::try_from(self.0.digits().saturating_add(scale.unsigned_abs())).unwrap_or(usize::MAX)
    }

    /// Whether it is 0.
    pub(crate) fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// -1, 0 or 1.
    pub(crate) fn signum(&self) -> i64 {
        match self.0.sign() {
            bigdecimal::num_bigint::Sign::Minus => -1,
            bigdecimal::num_bigint::Sign::NoSign => 0,
            bigdecimal::num_bigint::Sign::Plus => 1,
        }
    }

    /// The number with the other sign.
    #[must_use]
    pub(crate) fn negated(&self) -> Number {
        Number(-&self.0)
    }

    /// The number without its sign.
    #[must_use]
    pub(crate) fn absolute(&self) -> Number {
        Number(self.0.abs())
    }

    /// The nearest whole number by `mode`.
    #[must_use]
    pub(crate) fn rounded(&self, mode: RoundingMode) -> Number {
        Number(self.0.with_scale_round(0, mode).normalized())
    }

    /// The number with `places` digits behind the point, as `%.2f` writes it.
    pub(crate) fn fixed(&self, places: i64) -> String {
        self.0.with_scale_round(places, RoundingMode::HalfEven).to_plain_string()
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::Number::from_str(&self.to_string())
            .map_or(serde_json::Value::Null, serde_json::Value::Number)
    }

    /// The sum.
    ///
    /// # Errors
    /// It is out of range, as with all operations.
    pub(crate) fn plus(&self, other: &Number) -> Result<Number, String> {
        Number::checked(&(&self.0 + &other.0))
    }

    /// The difference.
    ///
    /// # Errors
    /// It is out of range.
    pub(crate) fn minus(&self, other: &Number) -> Result<Number, String> {
        Number::checked(&(&self.0 - &other.0))
    }

    /// The product.
    ///
    /// # Errors
    /// It is out of range.
    pub(crate) fn times(&self, other: &Number) -> Result<Number, String> {
        Number::checked(&(&self.0 * &other.0))
    }

    /// The quotient.
    ///
    /// # Errors
    /// `other` is 0.
    pub(crate) fn over(&self, other: &Number) -> Result<Number, String> {
        if other.is_zero() {
            return Err("cannot divide by zero".to_owned());
        }
        Number::checked(&(&self.0 / &other.0))
    }

    /// The rest of a division, with the sign of this number.
    ///
    /// # Errors
    /// `other` is 0.
    pub(crate) fn modulo(&self, other: &Number) -> Result<Number, String> {
        if other.is_zero() {
            return Err("cannot divide by zero".to_owned());
        }
        Number::checked(&(&self.0 % &other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_numbers() {
        let shown = |text: &str| Number::parse(text).map(|number| number.to_string());
        for (text, wanted) in [
            ("1", "1"),
            ("1.50", "1.5"),
            ("0.1", "0.1"),
            ("1e3", "1000"),
            ("-0.250", "-0.25"),
            ("1e-3", "0.001"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(wanted), "{text}");
        }
        for text in ["1e999999999", "1e-999999999", "x", "", "1 2"] {
            assert!(shown(text).is_err(), "{text}");
        }
        let (a, b) = (Number::parse("0.1").unwrap(), Number::parse("0.2").unwrap());
        assert_eq!(a.plus(&b).unwrap().to_string(), "0.3");
        assert!(Number::from(1_i64).over(&Number::from(0_i64)).is_err());
        assert!(Number::from(7_i64).over(&Number::from(3_i64)).unwrap().to_string().starts_with("2.3333"));
    }
}
