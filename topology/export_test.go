package topology

// WithoutShortcuts returns the same directory, read by way of os.Root only, as
// where the kernel has no openat2.
func (r *Root) WithoutShortcuts() *Root { return &Root{root: r.root} }

// ReadAll reads a small file as discovery does.
func (r *Root) ReadAll(name string) ([]byte, error) {
	buf := make([]byte, maxFile+1)
	n, err := r.readBounded(name, buf)
	return buf[:n], err
}
