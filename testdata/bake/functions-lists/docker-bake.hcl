# Functions on lists and tuples.
target "default" {
  args = {
    chunklist    = jsonencode([chunklist(["a", "b", "c"], 2), chunklist(["a"], 0)])
    coalesce     = jsonencode([coalesce(null, "b", "c"), coalesce(1, 2)])
    coalescelist = jsonencode([coalescelist([], ["a"], ["b"])])
    compact      = jsonencode(compact(["a", "", "b"]))
    concat       = jsonencode([concat(["a"], [1, true], [])])
    contains     = jsonencode([contains(["a", "b"], "a"), contains(["a"], "z")])
    distinct     = jsonencode(distinct(["a", "b", "a"]))
    element      = jsonencode([element(["a", "b", "c"], 1), element(["a", "b", "c"], 4)])
    flatten      = jsonencode(flatten([["a"], [["b"], "c"], []]))
    hasindex     = jsonencode([hasindex(["a"], 0), hasindex(["a"], 1)])
    index        = jsonencode([index(["a", "b"], 1)])
    indexof      = jsonencode(indexof(["a", "b"], "b"))
    length       = jsonencode([length([]), length(["a", "b"])])
    range        = jsonencode([range(3), range(1, 4), range(0, 10, 4), range(3, 0), range(-2)])
    reverselist  = jsonencode(reverselist(["a", 1, true]))
    slice        = jsonencode(slice(["a", "b", "c", "d"], 1, 3))
    sort         = jsonencode(sort(["b", "a", "C"]))
  }
}
