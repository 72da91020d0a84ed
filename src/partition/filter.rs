//! Which event types a reader wants.

use crate::id::TypeId;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Numbers of types that one word of [`Set::bits`] stands for.
const WORD_BITS: u32 = u64::BITS;

/// A set of event types: sorted, without repeats, cheap to clone, to compare with a clone, to hash and to send to other cores.
#[derive(Clone, Debug)]
pub struct TypeFilter(Arc<Set>);

#[derive(Debug)]
struct Set {
    types: Box<[TypeId]>,
    /// Of `types`, so that a large filter as a key costs no more than a small one.
    hash: u64,
    /// A bit for each number from the first type on. Empty when the numbers lie too far apart to be worth it.
    bits: Box<[u64]>,
}

impl TypeFilter {
    pub fn contains(&self, type_id: TypeId) -> bool {
        let Set { types, bits, .. } = &*self.0;
        if bits.is_empty() {
            return types.binary_search(&type_id).is_ok();
        }
        let Some(at) = type_id.0.checked_sub(types[0].0) else { return false };
        bits.get((at / WORD_BITS) as usize).is_some_and(|word| word >> (at % WORD_BITS) & 1 == 1)
    }

    /// The types in ascending order.
    pub fn types(&self) -> &[TypeId] {
        &self.0.types
    }
}

impl FromIterator<TypeId> for TypeFilter {
    fn from_iter<I: IntoIterator<Item = TypeId>>(types: I) -> Self {
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_unstable();
        types.dedup();
        let mut hasher = DefaultHasher::new();
        types.hash(&mut hasher);
        let bits = bits_of(&types);
        Self(Arc::new(Set { types: types.into(), hash: hasher.finish(), bits }))
    }
}

/// The bits of ascending `types`, unless they would take more room than the types do.
fn bits_of(types: &[TypeId]) -> Box<[u64]> {
    let (Some(first), Some(last)) = (types.first(), types.last()) else { return Box::default() };
    let words = ((last.0 - first.0) / WORD_BITS) as usize + 1;
    if words > types.len() {
        return Box::default();
    }
    let mut bits = vec![0; words];
    for type_id in types {
        let at = type_id.0 - first.0;
        bits[(at / WORD_BITS) as usize] |= 1 << (at % WORD_BITS);
    }
    bits.into()
}

impl Default for TypeFilter {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl PartialEq for TypeFilter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.types == other.0.types)
    }
}

impl Eq for TypeFilter {}

impl Hash for TypeFilter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(types: &[u32]) -> TypeFilter {
        types.iter().copied().map(TypeId).collect()
    }

    fn hash_of(filter: &TypeFilter) -> u64 {
        let mut hasher = DefaultHasher::new();
        filter.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn a_filter_is_the_same_however_it_was_listed() {
        let (a, b) = (filter(&[3, 1, 3, 2]), filter(&[1, 2, 3]));
        assert_eq!((&a, hash_of(&a)), (&b, hash_of(&b)));
        assert!(a.contains(TypeId(2)) && !a.contains(TypeId(4)));
        assert_ne!(a, filter(&[1, 2]));
        assert_eq!(filter(&[]), TypeFilter::default());
    }

    #[test]
    fn a_filter_takes_little_room_however_far_apart_its_types_are() {
        let filter = filter(&[0, u32::MAX]);
        assert!(filter.0.bits.is_empty());
        assert!(filter.contains(TypeId(u32::MAX)) && !filter.contains(TypeId(1)));
    }

    proptest! {
        #[test]
        fn exactly_the_listed_types_are_in_it(types in prop::collection::vec(0..300u32, 0..40)) {
            let filter = filter(&types);
            for number in 0..400 {
                prop_assert_eq!(filter.contains(TypeId(number)), types.contains(&number), "{}", number);
            }
        }
    }
}
