package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// App is one application that answers HTTP: what to run and how it is reached.
// The `apps` battery turns it into a Deployment, a Service, HTTPRoutes and what
// else production asks for, all of them standard objects that work without it.
//
// Its name is the first label of its host name, so it is an RFC 1123 label.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:scope=Namespaced,categories=emerald
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.url`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.readyReplicas`
// +kubebuilder:printcolumn:name="Revision",type=integer,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Image",type=string,priority=1,JSONPath=`.status.image`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="an App's name becomes a label of its host name: at most 63 of a-z, 0-9 and -, neither first nor last a -"
type App struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec AppSpec `json:"spec"`
	// +optional
	Status AppStatus `json:"status,omitempty"`
}

// AppSpec is what the user asks for.
type AppSpec struct {
	// Image to run: a reference as `docker pull` takes it. With a digest, what
	// runs can not change underneath the App; `emerald deploy` always writes one.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9._/:@-]*$`
	Image string `json:"image"`

	// Command replaces the image's entrypoint. It is not run in a shell.
	// +optional
	// +listType=atomic
	Command []string `json:"command,omitempty"`

	// Args replaces the image's default arguments.
	// +optional
	// +listType=atomic
	Args []string `json:"args,omitempty"`

	// Port the app listens on. It finds it in the variable PORT, too.
	// +optional
	// +kubebuilder:default=8080
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// Env are environment variables. PORT is set to Port unless listed here.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=512
	Env []EnvVar `json:"env,omitempty"`

	// Secrets of the App's namespace that the app may read.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Secrets []SecretUse `json:"secrets,omitempty"`

	// Replicas is how many copies run. When absent the platform chooses: one
	// on a single machine, two where there are machines to spread over.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// Resources of each copy. What is absent gets the platform's default.
	// +optional
	Resources AppResources `json:"resources,omitzero"`

	// Health tells how the platform knows that a copy can take requests. When
	// absent: as soon as its port accepts connections.
	// +optional
	Health *Health `json:"health,omitempty"`

	// Domains are host names the app answers to besides its own,
	// NAME.<platform domain>. Each gets a certificate. A name that another App
	// or route holds already is refused in the condition Routed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=15
	Domains []Domain `json:"domains,omitempty"`
}

// Domain is a host name: DNS labels joined by dots, at least two, in lower case,
// without a wildcard.
//
// +kubebuilder:validation:MaxLength=180
// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`
type Domain string

// EnvVar is an environment variable with a value of its own or one kept in a
// Secret or ConfigMap of the App's namespace. The field names are those of a
// pod's.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.value) && has(self.valueFrom))",message="give either value or valueFrom"
type EnvVar struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_.-]*$`
	Name string `json:"name"`

	// +optional
	// +kubebuilder:validation:MaxLength=131072
	Value string `json:"value,omitempty"`

	// +optional
	ValueFrom *EnvSource `json:"valueFrom,omitempty"`
}

// EnvSource is where the value of a variable is kept.
//
// +kubebuilder:validation:XValidation:rule="has(self.secretKeyRef) != has(self.configMapKeyRef)",message="give either secretKeyRef or configMapKeyRef"
type EnvSource struct {
	// +optional
	SecretKeyRef *KeyRef `json:"secretKeyRef,omitempty"`
	// +optional
	ConfigMapKeyRef *KeyRef `json:"configMapKeyRef,omitempty"`
}

// KeyRef names one key of a Secret or ConfigMap in the App's namespace.
type KeyRef struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`
}

// SecretUse lets the app read a Secret: as environment variables named after
// its keys or, when Path is given, as files named after them below Path.
type SecretUse struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Name string `json:"name"`

	// Path is the absolute directory the files appear in.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[^:]*[^/:]$`
	Path string `json:"path,omitempty"`
}

// AppResources are the share of a machine that each copy is promised (requests)
// and held to (limits).
type AppResources struct {
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`
}

// Health is the check whose success lets requests in.
type Health struct {
	// Path asked with HTTP GET; 200 to 399 is healthy. When absent, a
	// connection to the port is enough.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[!-~]*$`
	Path string `json:"path,omitempty"`

	// Port asked; the app's own when absent.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// Types of the conditions of an App.
const (
	// ConditionReady is true when the latest spec runs everywhere, every copy
	// is healthy, and the URL leads to them. Tools that know kstatus wait for it.
	ConditionReady = "Ready"
	// ConditionProgressing is true while a rollout advances; when it ended,
	// well or not, it is false and its reason says how.
	ConditionProgressing = "Progressing"
	// ConditionRouted is true when every host name of the App leads to it.
	ConditionRouted = "Routed"
)

// Reasons of an App's conditions, besides those copied from its pods, such as
// CrashLoopBackOff and ImagePullBackOff.
const (
	// ReasonReady is the reason of a condition that is as it should be.
	ReasonReady = "Ready"
	// ReasonRollingOut means new copies are starting.
	ReasonRollingOut = "RollingOut"
	// ReasonComplete means that the rollout is over and all copies are new.
	ReasonComplete = "Complete"
	// ReasonStopped means the App asks for no copies.
	ReasonStopped = "Stopped"
	// ReasonHostTaken means that another App or route holds a host name.
	ReasonHostTaken = "HostTaken"
	// ReasonHostForbidden means that a host name belongs to another namespace
	// or to the platform.
	ReasonHostForbidden = "HostForbidden"
	// ReasonNameTaken means that an object the App has to make exists and is
	// somebody else's.
	ReasonNameTaken = "NameTaken"
	// ReasonRefused means that the API server refused an object made from the
	// App; the message says why.
	ReasonRefused = "Refused"
	// ReasonRootImage means that the image runs as root and the platform is
	// set to refuse that.
	ReasonRootImage = "RootImage"
	// ReasonWaitingForGateway means the gateway has not yet taken the route.
	ReasonWaitingForGateway = "WaitingForGateway"
	// ReasonWaitingForCertificate means a custom domain has no certificate yet.
	ReasonWaitingForCertificate = "WaitingForCertificate"
	// ReasonDeadline means that the new copies did not become healthy in time.
	ReasonDeadline = "DeadlineExceeded"
)

// Names the apps battery and the command line agree on.
const (
	// LabelApp is on everything made for an App and holds its name.
	LabelApp = "emerald.dev/app"
	// AnnotationImageUser tells the controller what whoever wrote the App read
	// from the image: an [ImageUserKind], a space, and the image it holds for.
	AnnotationImageUser = "emerald.dev/image-user"
	// AnnotationCause is a line about why the App was last changed, shown in
	// its history.
	AnnotationCause = "kubernetes.io/change-cause"
	// AnnotationPort is "auto" on an App whose port nobody chose: it follows
	// what the image says.
	AnnotationPort = "emerald.dev/port"
	// AnnotationHealthy is "true" on the ControllerRevisions that once ran with
	// every copy healthy: those a rollback may return to without being told.
	AnnotationHealthy = "emerald.dev/healthy"
	// LabelTemplate is on every pod of an App and tells which rendering of the
	// App it came from.
	LabelTemplate = "emerald.dev/template"
)

// ImageUserKind says what is known about the user that an image runs as.
//
// +kubebuilder:validation:Enum=Numeric;Named;Root
type ImageUserKind string

const (
	// UserNumeric is a number other than 0: the kubelet can check it.
	UserNumeric ImageUserKind = "Numeric"
	// UserNamed is a name other than root: only the image's own files say
	// which number that is.
	UserNamed ImageUserKind = "Named"
	// UserRoot is user 0, or none given.
	UserRoot ImageUserKind = "Root"
)

// ImageUser is what is known about the user of one image.
type ImageUser struct {
	Image string        `json:"image"`
	Kind  ImageUserKind `json:"kind"`
}

// AppStatus is what the platform observed.
type AppStatus struct {
	// ObservedGeneration is the generation of the spec this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// URL is where the app answers.
	// +optional
	URL string `json:"url,omitempty"`

	// Hosts are the host names that this App holds: no other App gets them
	// while it lives and asks for them.
	// +optional
	// +listType=atomic
	Hosts []string `json:"hosts,omitempty"`

	// Image of the spec that was last rolled out.
	// +optional
	Image string `json:"image,omitempty"`

	// ImageUser is what the platform learned about the user of Image from the
	// kubelet.
	// +optional
	ImageUser *ImageUser `json:"imageUser,omitempty"`

	// Revision is the number of the spec in the App's history.
	// +optional
	Revision int64 `json:"revision,omitempty"`

	// Replicas is how many copies exist, of any revision.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`

	// ReadyReplicas is how many copies take requests, of any revision.
	// +optional
	ReadyReplicas int32 `json:"readyReplicas,omitempty"`

	// Selector matches the App's pods, for autoscalers.
	// +optional
	Selector string `json:"selector,omitempty"`
}

// AppList is a list of Apps.
//
// +kubebuilder:object:root=true
type AppList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []App `json:"items"`
}
