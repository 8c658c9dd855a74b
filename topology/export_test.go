package topology

// WithoutShortcuts returns the same directory, read by way of os.Root only, as
// where the kernel has no openat2.
func (r *Root) WithoutShortcuts() *Root { return &Root{root: r.root} }
