package qat

// model is a kind of function.
type model struct {
	name string
	// driver is that of physical functions, also where the function is a virtual one. The
	// kernel has drivers for virtual functions of older generations only; their names
	// have "vf" at the end.
	driver string
	// generation is as the kernel counts: its sources have gen2, gen4 and gen6.
	generation int64
	virtual    bool
}

// models are by vendor and device.
var models = map[int]model{
	0x80860434: {"QAT DH89xxCC", "dh895xcc", 2, false},
	0x80860442: {"QAT DH89xxCC", "dh895xcc", 2, true},
	0x80860435: {"QAT DH895xCC", "dh895xcc", 2, false},
	0x80860443: {"QAT DH895xCC", "dh895xcc", 2, true},
	0x808637c8: {"QAT C62x", "c6xx", 2, false},
	0x808637c9: {"QAT C62x", "c6xx", 2, true},
	0x808619e2: {"QAT C3xxx", "c3xxx", 2, false},
	0x808619e3: {"QAT C3xxx", "c3xxx", 2, true},
	0x80866f54: {"QAT D15xx", "d15xx", 2, false},
	0x80866f55: {"QAT D15xx", "d15xx", 2, true},
	0x808618a0: {"QAT C4xxx", "c4xxx", 3, false},
	0x808618a1: {"QAT C4xxx", "c4xxx", 3, true},
	0x80864940: {"QAT 4xxx", "4xxx", 4, false},
	0x80864941: {"QAT 4xxx", "4xxx", 4, true},
	0x80864942: {"QAT 401xx", "4xxx", 4, false},
	0x80864943: {"QAT 401xx", "4xxx", 4, true},
	0x80864944: {"QAT 402xx", "4xxx", 4, false},
	0x80864945: {"QAT 402xx", "4xxx", 4, true},
	0x80864946: {"QAT 420xx", "420xx", 4, false},
	0x80864947: {"QAT 420xx", "420xx", 4, true},
	0x80864948: {"QAT 6xxx", "6xxx", 6, false},
	0x80864949: {"QAT 6xxx", "6xxx", 6, true},
}
