//! Functions whose results travel as lines of JSON, so that the ranks make them and the driver only copies them.

use super::*;

struct JsonLines<F, C, I, O>(F, C, PhantomData<fn(I) -> O>);

impl<F, C, I, O> JobFunction for JsonLines<F, C, I, O>
where
    F: Fn(&C, I) -> O + Send + Sync,
    C: Send + Sync,
    I: Value,
    O: Serialize,
{
    fn call(&self, input: &[u8], output: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
        let input = decode_input(input)?;
        push_line(&stopwatch.time(|| (self.0)(&self.1, input)), output).map(|()| None)
    }
}

/// Appends a value as JSON, with the end of a line. Numbers that JSON does not have (NaN, infinities) become `null`.
fn push_line<O: Serialize>(value: &O, out: &mut Vec<u8>) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(|error| {
        Failure::new(JobErrorKind::Encode, format!("the result, a {}, has no JSON form: {error}", type_name::<O>()))
    })?;
    out.push(b'\n');
    Ok(())
}

/// A value as a line of JSON.
pub(crate) fn json_line<O: Serialize>(value: &O) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    push_line(value, &mut line)?;
    Ok(line)
}

/// The builder of a function of a context and an input whose result is encoded as a line of JSON, and as nothing else.
pub(crate) fn json_lines<F, C, I, O>(_: F) -> Builder
where
    F: Fn(&C, I) -> O + Copy + Send + Sync + 'static,
    C: Value + Send + Sync,
    I: Value,
    O: Serialize + 'static,
{
    |context| Ok(Function::OfJobs(Box::new(JsonLines(conjure::<F>(), decode_context::<C>(context)?, PhantomData))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_a_line_of_json_and_nothing_else() {
        let Ok(Function::OfJobs(function)) = json_lines(|add: &i64, x: i64| (x + add, f64::NAN))(&[2]) else {
            panic!("no function")
        };
        let mut output = b"before|".to_vec();
        function.call(&wire::encode(&40_i64).unwrap(), &mut output, &mut Stopwatch::default()).unwrap();
        assert_eq!(output, b"before|[41,null]\n");
    }
}
