package gpu

import "unsafe"

// WithKernel has another kernel answer.
func (q Ioctl) WithKernel(call func(fd int, request uint, argument unsafe.Pointer) error) Ioctl {
	q.call = call
	return q
}
