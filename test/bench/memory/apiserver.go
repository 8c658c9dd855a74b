package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/topolet/topolet/test/harness"
)

// apiServer is as much of the API server as the daemon asks for, behind TLS and
// HTTP/2 as the real one: its node, claims, and ResourceSlices to write and watch.
type apiServer struct {
	server *httptest.Server

	mu       sync.Mutex
	version  int
	claims   map[string]*resourceapi.ResourceClaim
	slices   map[string]*resourceapi.ResourceSlice
	watchers map[chan metav1.WatchEvent]bool
	unknown  []string // requests to which there is no answer
}

// newAPIServer starts one and writes a kubeconfig for it.
func newAPIServer(kubeconfig string) (*apiServer, error) {
	s := &apiServer{
		claims: map[string]*resourceapi.ResourceClaim{}, slices: map[string]*resourceapi.ResourceSlice{},
		watchers: map[chan metav1.WatchEvent]bool{},
	}
	mux := http.NewServeMux()
	const group = "/apis/resource.k8s.io/v1"
	mux.HandleFunc("GET /api/v1/nodes/{name}", s.getNode)
	mux.HandleFunc("GET "+group+"/namespaces/{namespace}/resourceclaims/{name}", s.getClaim)
	// What the daemon has to say of its claims changes nothing here.
	mux.HandleFunc("PATCH "+group+"/namespaces/{namespace}/resourceclaims/{name}/status", s.getClaim)
	mux.HandleFunc("GET "+group+"/resourceslices", s.listSlices)
	mux.HandleFunc("POST "+group+"/resourceslices", s.writeSlice)
	mux.HandleFunc("PUT "+group+"/resourceslices/{name}", s.writeSlice)
	mux.HandleFunc("DELETE "+group+"/resourceslices/{name}", s.deleteSlice)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unknown = append(s.unknown, r.Method+" "+r.URL.String())
		http.NotFound(w, r)
	})
	s.server = httptest.NewUnstartedServer(mux)
	s.server.EnableHTTP2 = true
	s.server.StartTLS()
	config := clientcmdapi.NewConfig()
	config.Clusters["memory"] = &clientcmdapi.Cluster{
		Server:                   s.server.URL,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}),
	}
	config.Contexts["memory"] = &clientcmdapi.Context{Cluster: "memory"}
	config.CurrentContext = "memory"
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *apiServer) close() {
	s.server.CloseClientConnections() // watches have no end of their own
	s.server.Close()
}

// unanswered is an error if the daemon asked for something that is not here.
func (s *apiServer) unanswered() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unknown) > 0 {
		return fmt.Errorf("the daemon asked for what this API server does not have: %q", s.unknown)
	}
	return nil
}

// published waits for the machine to be there, as devices.
func (s *apiServer) published(ctx context.Context) error {
	return harness.Wait(ctx, limit, "ResourceSlices", func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		devices := map[string]bool{}
		for _, slice := range s.slices {
			for _, d := range slice.Spec.Devices {
				devices[d.Name] = true
			}
		}
		for node := range numaNodes {
			if name := fmt.Sprintf("numa-%d", node); !devices[name] {
				return fmt.Errorf("device %s is not in them", name)
			}
		}
		return nil
	})
}

func (s *apiServer) add(claim *resourceapi.ResourceClaim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims[claim.Namespace+"/"+claim.Name] = claim
}

func (s *apiServer) remove(claim *resourceapi.ResourceClaim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.claims, claim.Namespace+"/"+claim.Name)
}

func (s *apiServer) getNode(w http.ResponseWriter, r *http.Request) {
	reply(w, r, &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: r.PathValue("name"), UID: types.UID(uid('d', 0))},
	})
}

func (s *apiServer) getClaim(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	claim, found := s.claims[r.PathValue("namespace")+"/"+r.PathValue("name")]
	if !found {
		http.NotFound(w, r)
		return
	}
	reply(w, r, claim)
}

// listSlices lists or, with the parameter, watches.
func (s *apiServer) listSlices(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("watch") != "" {
		s.watchSlices(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := resourceapi.ResourceSliceList{
		TypeMeta: metav1.TypeMeta{APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "ResourceSliceList"},
		ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)},
	}
	for _, slice := range s.slices {
		list.Items = append(list.Items, *slice)
	}
	reply(w, r, &list)
}

// watchSlices streams changes. A client that asks for it gets everything first,
// and a bookmark (KEP-3157).
func (s *apiServer) watchSlices(w http.ResponseWriter, r *http.Request) {
	since, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	isStart := r.URL.Query().Get("sendInitialEvents") == "true"
	if err != nil || isStart {
		since = 0
	}
	events := make(chan metav1.WatchEvent, 1000)
	s.mu.Lock()
	for _, slice := range s.slices {
		if version, err := strconv.Atoi(slice.ResourceVersion); err == nil && version > since {
			events <- event(watch.Added, slice)
		}
	}
	if isStart {
		events <- event(watch.Bookmark, &resourceapi.ResourceSlice{
			TypeMeta: metav1.TypeMeta{APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "ResourceSlice"},
			ObjectMeta: metav1.ObjectMeta{
				ResourceVersion: strconv.Itoa(s.version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			},
		})
	}
	s.watchers[events] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, events)
	}()
	form := formOf(r)
	w.Header().Set("Content-Type", form.MediaType+";stream=watch")
	stream, frames := http.NewResponseController(w), form.StreamSerializer.NewFrameWriter(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			raw, err := runtime.Encode(form.Serializer, e.Object.Object)
			if err == nil {
				e.Object = runtime.RawExtension{Raw: raw}
				err = form.StreamSerializer.Encode(&e, frames)
			}
			if err != nil || stream.Flush() != nil {
				return // the client is gone
			}
		}
	}
}

func (s *apiServer) writeSlice(w http.ResponseWriter, r *http.Request) {
	slice := &resourceapi.ResourceSlice{}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		_, _, err = scheme.Codecs.UniversalDeserializer().Decode(body, nil, slice)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	kind := watch.Modified
	if slice.Name == "" || s.slices[slice.Name] == nil {
		kind = watch.Added
		slice.Name = slice.GenerateName + strconv.Itoa(s.version)
		slice.UID = types.UID(uid('e', s.version))
		slice.CreationTimestamp = metav1.NewTime(time.Now())
	}
	slice.APIVersion, slice.Kind = resourceapi.SchemeGroupVersion.String(), "ResourceSlice"
	slice.ResourceVersion = strconv.Itoa(s.version)
	s.slices[slice.Name] = slice
	s.tell(event(kind, slice))
	reply(w, r, slice)
}

func (s *apiServer) deleteSlice(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slice, found := s.slices[r.PathValue("name")]
	if !found {
		http.NotFound(w, r)
		return
	}
	delete(s.slices, slice.Name)
	s.version++
	gone := slice.DeepCopy()
	gone.ResourceVersion = strconv.Itoa(s.version)
	s.tell(event(watch.Deleted, gone))
	reply(w, r, &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess})
}

func (s *apiServer) tell(e metav1.WatchEvent) {
	for events := range s.watchers {
		events <- e
	}
}

func event(kind watch.EventType, object runtime.Object) metav1.WatchEvent {
	return metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Object: object}}
}

// formOf is the first of the forms that the client asks for which there is. Who asks
// for none, gets JSON.
func formOf(r *http.Request) runtime.SerializerInfo {
	supported := scheme.Codecs.SupportedMediaTypes()
	for form := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		form, _, _ = strings.Cut(form, ";")
		if info, ok := runtime.SerializerInfoForMediaType(supported, form); ok {
			return info
		}
	}
	return supported[0]
}

// reply writes an object. Who is gone does not read it.
func reply(w http.ResponseWriter, r *http.Request, object runtime.Object) {
	form := formOf(r)
	w.Header().Set("Content-Type", form.MediaType)
	form.Serializer.Encode(object, w) //nolint:errcheck // see above
}
