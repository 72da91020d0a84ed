//! Which event types a reader wants.

use crate::id::TypeId;
use std::sync::Arc;

/// A set of event types: sorted, without repeats, cheap to clone and to send to other cores.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct TypeFilter(Arc<[TypeId]>);

impl TypeFilter {
    pub fn contains(&self, type_id: TypeId) -> bool {
        self.0.binary_search(&type_id).is_ok()
    }

    /// The types in ascending order.
    pub fn types(&self) -> &[TypeId] {
        &self.0
    }
}

impl FromIterator<TypeId> for TypeFilter {
    fn from_iter<I: IntoIterator<Item = TypeId>>(types: I) -> Self {
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_unstable();
        types.dedup();
        Self(types.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_the_same_however_it_was_listed() {
        let (a, b) = ([3, 1, 3, 2], [1, 2, 3]);
        let filter = |types: &[u32]| types.iter().copied().map(TypeId).collect::<TypeFilter>();
        assert_eq!(filter(&a), filter(&b));
        assert!(filter(&a).contains(TypeId(2)) && !filter(&a).contains(TypeId(4)));
    }
}
