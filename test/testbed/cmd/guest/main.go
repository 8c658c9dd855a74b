// Command guest is the first process of the virtual machine. See the package
// numa/guest.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/topolet/topolet/test/testbed/numa/guest"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		err = guest.Serve(context.Background(), os.Args[2])
	case os.Getpid() != 1:
		err = fmt.Errorf("this is the first process of the testbed's virtual machine; `testbed numa up` starts one")
	case len(os.Args) == 3 && os.Args[1] == "init":
		err = guest.Init(os.Args[2])
	default:
		err = guest.Boot()
	}
	if os.Getpid() == 1 {
		guest.PowerOff(fmt.Sprint("cannot go on, the machine is switched off: ", err))
	}
	fmt.Fprintln(os.Stderr, "guest:", err)
	os.Exit(1)
}
