//! Lines of the Prometheus text format.

/// A series with its value. Values of labels must not contain quotes, commas or braces. No metric
/// of a node has such a value ([`crate::metric`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The name with its labels: `offhook_calls_total{direction="inbound"}`.
    pub series: &'a str,
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// Parses a line. Returns `None` for comments and anything else that is not a sample.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        (!series.starts_with('#')).then_some(Self { series, value })
    }

    /// The metric's name.
    pub fn name(&self) -> &'a str {
        self.series.split('{').next().unwrap_or_default()
    }

    /// Returns the value of a label, or `None` if the series does not have the label.
    pub fn label(&self, name: &str) -> Option<&'a str> {
        let labels = self.series.split_once('{')?.1.strip_suffix('}')?;
        let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        pairs.find(|(label, _)| *label == name).map(|(_, value)| value.trim_matches('"'))
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn lines_are_parsed_into_name_labels_and_value() {
        let sample = Sample::parse("offhook_a_count{kind=\"b\",outcome=\"c\"} 7").unwrap();
        assert_eq!((sample.name(), sample.value), ("offhook_a_count", 7.0));
        assert_eq!((sample.label("outcome"), sample.label("le")), (Some("c"), None));
        let plain = Sample::parse("offhook_b 0.5").unwrap();
        assert_eq!((plain.name(), plain.value, plain.label("kind")), ("offhook_b", 0.5, None));
        for line in ["# TYPE offhook_a counter", "", "offhook_a", "offhook_a x"] {
            assert_eq!(Sample::parse(line), None, "{line}");
        }
    }
}
