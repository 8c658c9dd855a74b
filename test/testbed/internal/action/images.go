package action

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/topolet/topolet/test/testbed/internal/images"
	"github.com/topolet/topolet/test/testbed/internal/process"
)

// The images of every testbed.
const (
	PauseImage    = "docker.io/topolet/pause:test"
	WorkloadImage = "docker.io/topolet/workload:test"
	TopoletImage  = "docker.io/topolet/topolet:test"
)

// contentLabel is the label by which an image in the runtime tells which
// content it was made from.
const contentLabel = "testbed.topolet.dev/content"

func importImages(ctx context.Context, c *Context) (string, error) {
	list, err := c.Images(ctx)
	if err != nil {
		return "", err
	}
	return c.Import(ctx, c.Layout.ContainerdSocket(), list)
}

// TopoletProgram is where Images leaves the static topolet command.
func (c *Context) TopoletProgram() string { return filepath.Join(c.Layout.Images(), "topolet") }

// Images lists the images of every testbed, after building what they are made
// of.
func (c *Context) Images(ctx context.Context) ([]images.Image, error) {
	list := []images.Image{
		{Ref: PauseImage, Program: c.Layout.Program("pause"), Path: "/pause"},
		{Ref: WorkloadImage, Program: c.Layout.Program("workload"), Path: "/workload"},
	}
	if c.WithoutTopolet {
		return list, nil
	}
	c.step.Waiting("go build ./cmd/topolet")
	if err := c.Builder.BuildStatic(ctx, filepath.Join(c.Builder.Source, "..", ".."), "./cmd/topolet", c.TopoletProgram(), c.TopoletTags...); err != nil {
		return nil, fmt.Errorf("%w\nwithout it the cluster comes up with --without-topolet", err)
	}
	return append(list, images.Image{Ref: TopoletImage, Program: c.TopoletProgram(), Path: "/topolet"}), nil
}

// Import imports those of the images that the runtime behind the socket does
// not have.
func (c *Context) Import(ctx context.Context, socket string, list []images.Image) (string, error) {
	have, err := c.CtrAt(ctx, socket, "images", "list")
	if err != nil {
		return "", err
	}
	imported := 0
	for _, img := range list {
		digest, err := img.Digest()
		if err != nil {
			return "", err
		}
		if hasImage(have, img.Ref, digest) {
			continue
		}
		c.step.Waiting("import of %s", img.Ref)
		archive := filepath.Join(c.Layout.Images(), archiveName(img.Ref))
		if err := img.Archive(archive); err != nil {
			return "", err
		}
		if _, err := c.CtrAt(ctx, socket, "images", "import", "--digests=false", archive); err != nil {
			return "", err
		}
		if _, err := c.CtrAt(ctx, socket, "images", "label", img.Ref, contentLabel+"="+digest); err != nil {
			return "", err
		}
		imported++
	}
	return fmt.Sprintf("%d imported, %d up to date", imported, len(list)-imported), nil
}

func archiveName(ref string) string {
	return strings.NewReplacer("/", "_", ":", "_").Replace(ref) + ".tar"
}

// hasImage looks for an image with the content label in ctr's list.
func hasImage(list, ref, digest string) bool {
	for line := range strings.Lines(list) {
		if strings.HasPrefix(line, ref+" ") && strings.Contains(line, contentLabel+"="+digest) {
			return true
		}
	}
	return false
}

// Ctr runs containerd's client in the namespace of the kubelet's containers
// and returns its output.
func (c *Context) Ctr(ctx context.Context, args ...string) (string, error) {
	return c.CtrAt(ctx, c.Layout.ContainerdSocket(), args...)
}

// CtrAt is Ctr for the runtime behind another socket.
func (c *Context) CtrAt(ctx context.Context, socket string, args ...string) (string, error) {
	args = append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)
	cmd := exec.CommandContext(ctx, c.Layout.Program("ctr"), args...)
	cmd.Env = append(os.Environ(), process.MarkEnv(c.Layout.State)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w\n%s%s", strings.Join(args[4:], " "), err, strings.TrimSpace(stderr.String()), c.logTail("containerd"))
	}
	return string(out), nil
}
