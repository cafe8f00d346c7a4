//! Sums, products, powers and brackets of numbers: what the demonstration's calculator can do.

/// Deepest brackets.
const DEEPEST: usize = 64;

/// The value of an expression such as `12*(3+4)^2`.
pub(super) fn evaluate(expression: &str) -> Result<f64, &'static str> {
    let mut left = Left { text: expression.as_bytes(), depth: 0 };
    let value = left.sum()?;
    left.blanks();
    match (left.text, value.is_finite()) {
        ([], true) => Ok(value),
        ([], false) => Err("out of range"),
        _ => Err("invalid argument"),
    }
}

/// What is left to read.
struct Left<'a> {
    text: &'a [u8],
    depth: usize,
}

impl Left<'_> {
    fn sum(&mut self) -> Result<f64, &'static str> {
        let mut value = self.product()?;
        while let Some(operator) = self.one_of(b"+-") {
            let other = self.product()?;
            value = if operator == b'+' { value + other } else { value - other };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<f64, &'static str> {
        let mut value = self.signed()?;
        while let Some(operator) = self.one_of(b"*/") {
            let other = self.signed()?;
            value = if operator == b'*' { value * other } else { value / other };
        }
        Ok(value)
    }

    /// A minus binds less than a power: -2^2 is -4.
    fn signed(&mut self) -> Result<f64, &'static str> {
        match self.one_of(b"-") {
            Some(_) => Ok(-self.deeper(Self::signed)?),
            None => self.power(),
        }
    }

    fn power(&mut self) -> Result<f64, &'static str> {
        let base = self.operand()?;
        match self.one_of(b"^") {
            Some(_) => Ok(base.powf(self.deeper(Self::signed)?)),
            None => Ok(base),
        }
    }

    fn operand(&mut self) -> Result<f64, &'static str> {
        if self.one_of(b"(").is_some() {
            let value = self.deeper(Self::sum)?;
            return self.one_of(b")").map(|_| value).ok_or("invalid argument");
        }
        let digits = self.text.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let (number, rest) = self.text.split_at(digits);
        self.text = rest;
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        number.ok_or("invalid argument")
    }

    fn deeper(&mut self, read: impl Fn(&mut Self) -> Result<f64, &'static str>) -> Result<f64, &'static str> {
        self.depth += 1;
        let value = if self.depth > DEEPEST { Err("invalid argument") } else { read(self) };
        self.depth -= 1;
        value
    }

    /// Takes the next sign if it is one of these; blanks before and behind it do not count.
    fn one_of(&mut self, signs: &[u8]) -> Option<u8> {
        self.blanks();
        let (&sign, rest) = self.text.split_first().filter(|(sign, _)| signs.contains(sign))?;
        self.text = rest;
        self.blanks();
        Some(sign)
    }

    fn blanks(&mut self) {
        self.text = self.text.trim_ascii_start();
    }
}

#[cfg(test)]
mod tests {
    use super::evaluate;

    #[test]
    fn brackets_bind_before_powers_and_those_before_products() {
        let cases = [
            ("12*(3+4)", Ok(84.0)),
            (" 2 + 3 * 4 ", Ok(14.0)),
            ("-2^2", Ok(-4.0)),
            ("2^-1", Ok(0.5)),
            ("2^3^2", Ok(512.0)),
            ("10-4-3", Ok(3.0)),
            ("8/4/2", Ok(1.0)),
            ("1.5*-2", Ok(-3.0)),
            ("1/0", Err("out of range")),
            ("", Err("invalid argument")),
            ("2 3", Err("invalid argument")),
            ("(2", Err("invalid argument")),
            ("two", Err("invalid argument")),
        ];
        for (expression, wanted) in cases {
            assert_eq!(evaluate(expression), wanted, "{expression}");
        }
        assert_eq!(evaluate(&"(".repeat(1000)), Err("invalid argument"));
        assert_eq!(evaluate(&"-".repeat(1000)), Err("invalid argument"));
    }
}
