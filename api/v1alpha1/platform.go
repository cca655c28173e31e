package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// PlatformName is the name of the one Platform of a cluster.
const PlatformName = "emerald"

// Platform holds the user's settings of the whole platform. There is one in a
// cluster, called "emerald"; `emerald up --config` writes the first, and
// whatever changes in it is applied live. Settings that cannot be followed
// leave the condition Accepted false, and the last good ones in force.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=emerald
// +kubebuilder:printcolumn:name="Domain",type=string,JSONPath=`.status.domain`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Waits for",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'emerald'",message="the one Platform of a cluster is called emerald"
type Platform struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec PlatformSpec `json:"spec,omitzero"`
	// +optional
	Status PlatformStatus `json:"status,omitzero"`
}

// PlatformSpec is what the user may settle. Every field may be left out.
type PlatformSpec struct {
	// Domain under which the platform and its apps are reached. When absent it
	// is what the platform was started with: emerald.localhost. It is part of
	// the names of images, and stays what it was when the platform first started.
	// +optional
	// +kubebuilder:validation:MaxLength=190
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`
	Domain string `json:"domain,omitempty"`

	// Batteries are the settings of batteries by their name. A battery that is
	// not listed is on, with its defaults.
	// +optional
	// +kubebuilder:validation:MaxProperties=256
	Batteries map[string]BatterySettings `json:"batteries,omitempty"`
}

// BatterySettings are what the user settles for one battery.
type BatterySettings struct {
	// Enabled turns the battery off when false. What it keeps for users stays:
	// volumes, secrets, and definitions of which objects exist.
	// +optional
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`

	// Config is laid over the battery's defaults: see its README for the
	// fields. A field that the battery does not have is refused.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	Config *runtime.RawExtension `json:"config,omitempty"`
}

// Types of the conditions of a Platform.
const (
	// ConditionAccepted is true when the settings of the observed generation
	// are in force, false when they cannot be followed.
	ConditionAccepted = "Accepted"
	// ConditionReady, which an App has too, is true of a Platform when every
	// battery that is on does its job. Its message names what is waited for.
)

// Phase says how far a battery is.
//
// +kubebuilder:validation:Enum=Off;Waiting;Installing;Starting;Ready;Failed
type Phase string

// Phases of a battery, in the order it goes through them. Off ends its life,
// Failed is tried again by itself.
const (
	// PhaseOff is a battery that is turned off and gone.
	PhaseOff Phase = "Off"
	// PhaseWaiting is a battery that waits for those it needs.
	PhaseWaiting Phase = "Waiting"
	// PhaseInstalling is a battery whose objects are being applied.
	PhaseInstalling Phase = "Installing"
	// PhaseStarting is a battery whose process starts.
	PhaseStarting Phase = "Starting"
	// PhaseReady is a battery that does its job.
	PhaseReady Phase = "Ready"
	// PhaseFailed is a battery whose objects the cluster refuses.
	PhaseFailed Phase = "Failed"
)

// PlatformStatus is what the platform says about itself.
type PlatformStatus struct {
	// ObservedGeneration is the generation of the spec that Accepted speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Domain in force.
	// +optional
	Domain string `json:"domain,omitempty"`

	// Version of the platform that runs.
	// +optional
	Version string `json:"version,omitempty"`

	// Conditions are Accepted and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Batteries is the state of each battery.
	// +optional
	// +listType=map
	// +listMapKey=name
	Batteries []BatteryStatus `json:"batteries,omitempty"`
}

// BatteryStatus is the state of one battery.
type BatteryStatus struct {
	Name  string `json:"name"`
	Phase Phase  `json:"phase"`
	// Message says what is waited for, or what is wrong. Empty when the battery
	// is ready.
	// +optional
	Message string `json:"message,omitempty"`
	// Since is when the phase began.
	// +optional
	Since metav1.Time `json:"since,omitzero"`
}

// PlatformList is what listing Platforms gives.
//
// +kubebuilder:object:root=true
type PlatformList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Platform `json:"items"`
}
