package apt

import (
	"strings"
	"testing"
)

func TestBackportsAreAtTheMirrorOfTheRelease(t *testing.T) {
	const release = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n"
	const targets = "http://security.mirror.example/debian-security bookworm-security main\nhttp://mirror.example/debian bookworm contrib\nhttp://mirror.example/debian bookworm main\n"
	got, suite, err := backportsSources(release, targets)
	if err != nil || suite != "bookworm-backports" {
		t.Fatalf("suite %q, %v", suite, err)
	}
	for _, want := range []string{"URIs: http://mirror.example/debian\n", "Suites: bookworm-backports\n", "Signed-By: /"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if _, _, err := backportsSources(release, "http://mirror.example/debian trixie main\n"); err == nil || !strings.Contains(err.Error(), "bookworm") {
		t.Errorf("no source of the release: error %v", err)
	}
	if _, _, err := backportsSources("ID=fedora\nPRETTY_NAME=\"Fedora 44\"\n", targets); err == nil || !strings.Contains(err.Error(), "Fedora 44") {
		t.Errorf("another distribution: error %v, want one that names it", err)
	}
}
