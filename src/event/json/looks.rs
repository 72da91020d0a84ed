//! A first check of an object for repeated names, cheap enough for every name.

/// What the names of an object look like: tells most objects without a repeated name at a glance.
pub(super) struct Looks {
    /// Which of [`look`]'s numbers there were. As bytes, since a bit of a word took three times the instructions.
    seen: [bool; 256],
    /// Whether two of the names may be the same.
    pub alike: bool,
}

impl Looks {
    /// Of an object without members.
    pub fn new() -> Self {
        Self { seen: [false; 256], alike: false }
    }

    /// Looks at one more name, as written.
    #[inline(always)]
    pub fn add(&mut self, name: &[u8]) {
        let seen = &mut self.seen[usize::from(look(name))];
        self.alike |= *seen;
        *seen = true;
    }
}

/// A number that two names rarely share, made of their length, ends and middle.
#[inline(always)]
fn look(name: &[u8]) -> u8 {
    let length = name.len() as u8;
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return length;
    };
    let middle = name[name.len() / 2];
    [*first, *last, middle].iter().fold(length, |look, byte| look.wrapping_mul(5).wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(names: &[&str]) -> bool {
        let mut looks = Looks::new();
        names.iter().for_each(|name| looks.add(name.as_bytes()));
        looks.alike
    }

    #[test]
    fn the_same_name_looks_alike() {
        for name in ["", "a", "ab", "abc", "\u{103}", "a name of some length"] {
            assert!(alike(&[name, "x", name]), "{name}");
        }
    }

    #[test]
    fn names_of_an_event_look_different() {
        assert!(!alike(&[
            "specversion",
            "id",
            "source",
            "type",
            "time",
            "subject",
            "datacontenttype",
            "data"
        ]));
        assert!(!alike(&[
            "name",
            "note",
            "number",
            "registered",
            "person",
            "address",
            "valid",
            "amount",
            "tags"
        ]));
    }
}
