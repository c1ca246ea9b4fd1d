//! Tags: a prefix before each line of a job's output, which shows the job.

/// Puts `TAG<TAB>` before each line of one stream of one job, which comes in pieces. Bytes are passed on unchanged, whatever their
/// encoding; an unfinished last line gets an end, so that the next job's output begins on a new line.
#[derive(Clone, Debug)]
pub struct Tag {
    prefix: Vec<u8>,
    is_in_line: bool,
}

impl Tag {
    /// Makes a tag for one stream of one job.
    pub fn new(tag: &str) -> Tag {
        let mut prefix = tag.as_bytes().to_vec();
        prefix.push(b'\t');
        Tag { prefix, is_in_line: false }
    }

    /// Appends the next piece of the output, tagged, to `tagged`.
    pub fn piece(&mut self, piece: &[u8], tagged: &mut Vec<u8>) {
        tagged.reserve(piece.len());
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_in_line {
                tagged.extend_from_slice(&self.prefix);
            }
            tagged.extend_from_slice(line);
            self.is_in_line = !line.ends_with(b"\n");
        }
    }

    /// Ends the last line if it is open. The next output is that of another attempt.
    pub fn end(&mut self, tagged: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_in_line) {
            tagged.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A whole output, tagged.
    fn whole(tag: &str, output: &[u8]) -> Vec<u8> {
        let (mut tag, mut tagged) = (Tag::new(tag), Vec::new());
        tag.piece(output, &mut tagged);
        tag.end(&mut tagged);
        tagged
    }

    #[test]
    fn each_line_gets_the_tag_and_the_last_one_an_end() {
        assert_eq!(whole("a b", b"x\n\ny"), b"a b\tx\na b\t\na b\ty\n");
        assert_eq!(whole("t", b""), b"");
        assert_eq!(whole("t", b"\n"), b"t\t\n");
        assert_eq!(whole("", b"x\r\n"), b"\tx\r\n");
        assert_eq!(whole("t", b"\xff\xfe\0\n\x80"), b"t\t\xff\xfe\0\nt\t\x80\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_make_no_difference(pieces in prop::collection::vec("[ab\n]{0,6}", 0..8)) {
            let (mut tag, mut tagged) = (Tag::new("t"), Vec::new());
            for piece in &pieces {
                tag.piece(piece.as_bytes(), &mut tagged);
            }
            tag.end(&mut tagged);
            prop_assert_eq!(tagged, whole("t", pieces.concat().as_bytes()));
        }
    }
}
