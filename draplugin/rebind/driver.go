package rebind

// Driver returns the vfio driver that a function would be given to by [Rebinder.ToVFIO], or
// why it would be refused.
func (r *Rebinder) Driver(address string) (string, error) {
	f, err := r.function(address)
	if err != nil {
		return "", err
	}
	driver := f.vfioDriver()
	return driver, f.refuse(driver)
}
