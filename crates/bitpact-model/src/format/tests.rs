//! Lists of integers have one form.

use super::list_head;

#[test]
fn the_width_of_a_list_is_the_least_that_holds_every_value() {
    for (values, head) in [
        (vec![0i64], 0x81),
        (vec![127, -128], 1),
        (vec![128, 0], 2),
        (vec![-129, 0], 2),
        (vec![32_767, 0, -32_768], 2),
        (vec![32_768, 0], 3),
        (vec![i64::from(i32::MAX), 0], 4),
        (vec![i64::from(i32::MIN) - 1, 0], 5),
        (vec![1 << 55, 1 << 55], 0x88),
        (vec![i64::MIN, i64::MAX], 8),
    ] {
        assert_eq!(list_head(&values), head, "{values:?}");
    }
}
