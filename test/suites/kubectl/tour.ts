/**
 * What people do with kubectl that needs no running pod, in an order that tells a story. A row is the command line and what its output
 * must match; `fails` wants another exit code than 0. `old` is what kubectl 1.20 does instead, where upstream's own server would not
 * satisfy it either (an API version that was removed, a command it does not have).
 */
export interface Step {
  run: string;
  shows?: RegExp;
  fails?: RegExp;
  old?: { shows?: RegExp; fails?: RegExp };
  stdin?: string;
  env?: Record<string, string>;
}

export const WEB = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1.25
        ports: [{containerPort: 80}]
        env: [{name: A, value: "1"}]
`;
const NODE = `apiVersion: v1
kind: Node
metadata: {name: n1}
`;
const MANY = `apiVersion: v1
kind: ConfigMap
metadata: {name: many, labels: {set: s}}
data: {a: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: many, labels: {set: s}}
stringData: {p: w}
`;
const UNKNOWN = /unknown command|unknown flag|unknown shorthand/;

export const TOUR: readonly Step[] = [
  { run: 'version', shows: /v1\.36/ },
  { run: 'cluster-info', shows: /is running at/ },
  { run: 'api-versions', shows: /apps\/v1[\s\S]*storage\.k8s\.io\/v1/ },
  { run: 'api-resources', shows: /deployments +deploy +apps\/v1 +true +Deployment/ },
  { run: 'api-resources --api-group=batch -o name', shows: /cronjobs\.batch\njobs\.batch/ },
  { run: 'api-resources --namespaced=false', shows: /namespaces +ns/ },
  { run: 'get --raw /version', shows: /"gitVersion"/ },
  { run: 'get --raw /readyz', shows: /^ok/ },
  { run: 'get --raw /livez?verbose', shows: /livez check passed/ },
  { run: 'get --raw /metrics', shows: /apiserver_request_total/ },
  { run: 'get namespaces', shows: /default +Active[\s\S]*kube-system +Active/ },
  { run: 'get svc kubernetes', shows: /ClusterIP +10\.96\.0\.1/ },
  { run: 'get sc,ingressclass,priorityclass', shows: /local \(default\)[\s\S]*estiba[\s\S]*system-node-critical/ },
  { run: 'get configmap kube-root-ca.crt -o jsonpath="{.data.ca\\.crt}"', shows: /BEGIN CERTIFICATE/ },
  // -- declaring
  { run: 'apply -f web.yaml', shows: /deployment\.apps\/web created/ },
  { run: 'apply -f web.yaml', shows: /unchanged/ },
  { run: 'get deploy', shows: /NAME +READY +UP-TO-DATE +AVAILABLE +AGE\nweb +0\/3/ },
  { run: 'get deploy -o wide', shows: /CONTAINERS +IMAGES +SELECTOR[\s\S]*nginx:1\.25 +app=web/ },
  { run: 'get deploy web -o yaml', shows: /progressDeadlineSeconds: 600/ },
  { run: 'get deploy web -o jsonpath="{.spec.strategy.rollingUpdate.maxSurge}"', shows: /^25%$/ },
  { run: 'get deploy web -o custom-columns=N:.metadata.name,R:.spec.replicas', shows: /web +3/ },
  { run: 'get deploy web -o go-template="{{.metadata.name}}"', shows: /^web$/ },
  { run: 'get deploy -o name', shows: /deployment\.apps\/web/ },
  { run: 'get deploy --show-labels', shows: /app=web/ },
  { run: 'get deploy -L app', shows: /APP/ },
  { run: 'get deploy --sort-by=.metadata.name', shows: /web/ },
  { run: 'get deploy -l app=web', shows: /web/ },
  { run: 'get deploy -l "app in (other)"', shows: /No resources found/ },
  { run: 'get deploy --field-selector metadata.name=web', shows: /web/ },
  { run: 'get pods --field-selector nonsense=1', fails: /field label not supported: nonsense/ },
  { run: 'diff -f web.yaml', shows: /^$/ },
  { run: 'diff -f web2.yaml', fails: /-\s+image: nginx:1\.25\n\+\s+image: nginx:1\.26/ },
  { run: 'apply --dry-run=server -f web2.yaml', shows: /configured \(server dry run\)/ },
  { run: 'apply --dry-run=client -f web2.yaml', shows: /dry run/ },
  {
    run: 'apply --server-side -f web2.yaml',
    fails: /conflict with "kubectl-client-side-apply"[\s\S]*\.spec\.template\.spec\.containers\[name="web"\]\.image/,
  },
  { run: 'apply --server-side --force-conflicts -f web2.yaml', shows: /serverside-applied/ },
  { run: 'apply --server-side --field-manager=other -f web.yaml', fails: /conflict/ },
  { run: 'apply -f many.yaml', shows: /configmap\/many created\nsecret\/many created/ },
  {
    run: 'apply -f many.yaml --prune -l set=s',
    shows: /configmap\/many unchanged/,
    // it looks through extensions/v1beta1, too
    old: { fails: /./ },
  },
  { run: 'apply view-last-applied configmap/many', shows: /a: "1"/ },
  { run: 'apply set-last-applied -f many.yaml', shows: /configured|unchanged/ },
  { run: 'get cm,secret -l set=s', shows: /configmap\/many[\s\S]*secret\/many/ },
  { run: 'get secret many -o jsonpath="{.data.p}"', shows: /^dw==$/ },
  { run: 'create -f web.yaml', fails: /deployments\.apps "web" already exists/ },
  { run: 'replace -f web.yaml', shows: /replaced/ },
  // -- changing
  { run: 'scale deploy web --replicas=5', shows: /scaled/ },
  { run: 'scale deploy web --current-replicas=4 --replicas=2', fails: /Expected replicas to be 4, was 5/ },
  { run: 'label deploy web tier=front', shows: /labeled/ },
  { run: 'label deploy web tier=back', fails: /--overwrite/ },
  { run: 'label deploy web tier-', shows: /labeled|unlabeled/ },
  { run: 'annotate deploy web note=hi', shows: /annotated/ },
  {
    run: `patch deploy web -p '{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"nginx:1.27"}]}}}}'`,
    shows: /patched/,
  },
  { run: `patch deploy web --type=merge -p '{"spec":{"paused":true}}'`, shows: /patched/ },
  { run: `patch deploy web --type=json -p '[{"op":"replace","path":"/spec/replicas","value":2}]'`, shows: /patched/ },
  {
    run: `patch deploy web --type=json -p '[{"op":"test","path":"/spec/replicas","value":9}]'`,
    fails: /test|request is invalid/,
  },
  {
    run: `patch deploy web -p '{"spec":{"replicas":"many"}}'`,
    fails: /cannot unmarshal string into Go struct field spec\.replicas of type int32/,
  },
  { run: `patch deploy web -p '{"spec":{"selector":{"matchLabels":{"x":"y"}}}}'`, fails: /field is immutable/ },
  { run: 'set image deploy/web web=nginx:1.28', shows: /image updated/ },
  { run: 'set env deploy/web B=2', shows: /env updated/ },
  { run: 'set resources deploy/web --limits=cpu=200m,memory=64Mi', shows: /resource requirements updated/ },
  { run: 'set serviceaccount deploy/web default', shows: /serviceaccount updated/ },
  { run: 'set selector svc/kubernetes a=b --dry-run=client', shows: /selector updated/ },
  { run: 'rollout resume deploy/web', shows: /resumed/ },
  { run: 'rollout pause deploy/web', shows: /paused/ },
  { run: 'rollout restart deploy/web', fails: /can't restart paused deployment/ },
  { run: 'rollout history deploy/web', shows: /No rollout history found|REVISION/ },
  { run: 'rollout status deploy/web --timeout=1s', fails: /Waiting for deployment spec update to be observed/ },
  { run: 'edit deploy web', env: { EDITOR: 'sed -i s/replicas:.2/replicas:\\ 4/' }, shows: /edited/ },
  { run: 'edit deploy web', env: { EDITOR: 'true' }, shows: /Edit cancelled|no changes/ },
  { run: 'expose deploy web --port=80 --type=NodePort', shows: /service\/web exposed/ },
  { run: 'get svc web', shows: /NodePort +10\.96\.\d+\.\d+ +<none> +80:3\d{4}\/TCP/ },
  { run: 'autoscale deploy web --min=1 --max=5 --cpu-percent=50', shows: /autoscaled/ },
  { run: 'get hpa', shows: /web +Deployment\/web +cpu: <unknown>\/50% +1 +5/ },
  {
    run: 'get horizontalpodautoscalers.v1.autoscaling web -o jsonpath="{.spec.targetCPUUtilizationPercentage}"',
    shows: /^50$/,
  },
  { run: 'describe deploy web', shows: /Name: +web[\s\S]*Replicas:/ },
  { run: 'describe svc web', shows: /NodePort/ },
  { run: 'describe hpa web', shows: /Reference/, old: { shows: /Reference/ } },
  // -- explaining
  { run: 'explain deploy', shows: /KIND: +Deployment/ },
  { run: 'explain deploy.spec.strategy.rollingUpdate', shows: /maxSurge/ },
  { run: 'explain pod.spec.containers.ports --recursive', shows: /containerPort\s+<integer>/ },
  { run: 'explain hpa --api-version=autoscaling/v1', shows: /VERSION: +(autoscaling\/)?v1/ },
  { run: 'explain pod.spec.nonsense', fails: /does not exist/ },
  // -- making things
  { run: 'create namespace team', shows: /created/ },
  { run: 'create configmap c1 --from-literal=a=b -n team', shows: /created/ },
  { run: 'create secret generic s1 --from-literal=p=w -n team', shows: /created/ },
  {
    run: 'create secret docker-registry reg --docker-server=r.example --docker-username=u --docker-password=p -n team',
    shows: /created/,
  },
  { run: 'create serviceaccount bot -n team', shows: /created/ },
  { run: 'create role r --verb=get,list --resource=pods -n team', shows: /created/ },
  { run: 'create rolebinding rb --role=r --serviceaccount=team:bot -n team', shows: /created/ },
  { run: 'create clusterrole cr --verb=get --resource=nodes', shows: /created/ },
  { run: 'create clusterrolebinding crb --clusterrole=cr --user=eve', shows: /created/ },
  { run: 'create quota q --hard=pods=1 -n team', shows: /created/ },
  { run: 'create job j --image=busybox -- true', shows: /created/ },
  {
    run: `create cronjob cj --image=busybox --schedule='*/5 * * * *' -- date`,
    shows: /created/,
    old: { fails: /could not find the requested resource/ },
  },
  {
    run: `create cronjob bad --image=busybox --schedule='whenever' -- date`,
    fails: /spec\.schedule: Invalid value/,
    old: { fails: /./ },
  },
  { run: 'create job from-cj --from=cronjob/cj', shows: /created/, old: { fails: /./ } },
  {
    run: 'create pdb p --selector=app=web --min-available=1',
    shows: /created/,
    old: { fails: /no matches for kind "PodDisruptionBudget" in version "policy\/v1beta1"/ },
  },
  { run: 'create ingress i --rule=a.example/=web:80', shows: /created/ },
  { run: 'create deployment d2 --image=busybox --replicas=2', shows: /created/ },
  { run: 'create service clusterip cs --tcp=80:8080', shows: /created/ },
  { run: 'create service externalname en --external-name=x.example', shows: /created/ },
  { run: 'create priorityclass hi --value=100', shows: /created/ },
  { run: 'create token bot -n team', shows: /^ey[\w-]+\./, old: { fails: /./ } },
  {
    run: 'create -f -',
    stdin: '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"Bad_Name"},"spec":{"containers":[{"name":"a"}]}}',
    fails: /metadata\.name: Invalid value: "Bad_Name"[\s\S]*containers\[0\]\.image: Required value/,
  },
  {
    run: 'apply -f -',
    stdin: '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"u"},"dta":{}}',
    fails: /unknown field "dta"|ValidationError/,
  },
  {
    run: 'apply --validate=false -f -',
    stdin: '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"u"},"dta":{}}',
    shows: /created/,
  },
  {
    run: 'apply -f -',
    stdin: '{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"x"}}',
    fails: /no matches for kind "CustomResourceDefinition"|unable to recognize|failed to check CRD/,
  },
  { run: 'run p1 --image=busybox -n team --restart=Never', shows: /created/ },
  {
    run: 'run p2 --image=busybox -n team --restart=Never',
    fails: /exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1/,
  },
  { run: 'get pod p1 -n team', shows: /p1 +0\/1 +Pending +0/ },
  { run: 'describe pod p1 -n team', shows: /QoS Class: +BestEffort/ },
  { run: 'logs p1 -n team', fails: /does not have a host assigned/ },
  { run: 'wait --for=condition=Ready pod/p1 -n team --timeout=1s', fails: /timed out waiting for the condition/ },
  { run: 'wait --for=delete pod/none --timeout=1s', shows: /^$/, old: { fails: /no matching resources found/ } },
  { run: 'get all -n team', shows: /pod\/p1/ },
  { run: 'get all -A', shows: /service\/kubernetes[\s\S]*deployment\.apps\/web/ },
  { run: 'get events -A', shows: /No resources found/ },
  { run: 'events -A', shows: /No events found/, old: { fails: UNKNOWN } },
  { run: 'describe quota q -n team', shows: /Name: +q/ },
  { run: 'describe ingress i', shows: /a\.example/ },
  { run: 'describe secret s1 -n team', shows: /p: +1 bytes/ },
  { run: 'describe ns team', shows: /Status: +Active/ },
  // -- who may what
  { run: 'auth can-i create pods', shows: /yes/ },
  { run: 'auth can-i create pods --as=eve', fails: /no/ },
  { run: 'auth can-i get nodes --as=eve', shows: /yes/ },
  { run: 'auth can-i list pods --as=system:serviceaccount:team:bot -n team', shows: /yes/ },
  { run: 'auth can-i list pods --as=system:serviceaccount:team:bot', fails: /no/ },
  { run: 'auth can-i --list', shows: /\*\.\*/ },
  { run: 'auth whoami', shows: /estiba-admin/, old: { fails: UNKNOWN } },
  { run: 'auth reconcile -f role.yaml', shows: /reconciled/ },
  {
    run: 'get pods --as=eve',
    fails: /User "eve" cannot list resource "pods" in API group "" in the namespace "default"/,
  },
  { run: 'describe clusterrole view', shows: /Name: +view/ },
  // -- nodes
  { run: 'apply -f node.yaml', shows: /node\/n1 created/ },
  { run: 'get nodes', shows: /n1 +Unknown/ },
  { run: 'cordon n1', shows: /cordoned/ },
  { run: 'get node n1', shows: /SchedulingDisabled/ },
  { run: 'drain n1 --ignore-daemonsets', shows: /drained/, old: { shows: /drained/ } },
  { run: 'drain n1 --dry-run=server', shows: /drained \(server dry run\)/ },
  { run: 'uncordon n1', shows: /uncordoned/ },
  { run: 'taint node n1 a=b:NoSchedule', shows: /tainted/ },
  { run: 'taint node n1 a-', shows: /untainted/ },
  { run: 'label node n1 node-role.kubernetes.io/worker=', shows: /labeled/ },
  { run: 'get nodes', shows: /worker/ },
  { run: 'describe node n1', shows: /Roles: +worker/ },
  // -- watching and paging
  { run: 'get cm -w --request-timeout=1s', shows: /many/, old: { shows: /many/ } },
  { run: 'get cm -A --chunk-size=2', shows: /kube-system[\s\S]*many|many[\s\S]*kube-system/ },
  { run: 'get --raw "/api/v1/namespaces?limit=1"', shows: /"continue":"[\w-]+"/ },
  // -- taking away
  { run: 'delete pod p1 -n team', shows: /deleted/ },
  { run: 'delete deploy d2 --cascade=foreground --wait=false', shows: /deleted/, old: { shows: /deleted/ } },
  { run: 'delete cm many', shows: /deleted/ },
  { run: 'delete -f many.yaml --ignore-not-found', shows: /secret "many" deleted/ },
  { run: 'delete svc -l app=web', shows: /service "web" deleted/ },
  { run: 'delete deploy --all --dry-run=server', shows: /dry run/ },
  { run: 'delete ns team --wait=false', shows: /deleted/ },
  { run: 'get ns team', shows: /Terminating/ },
  { run: 'create cm late -n team', fails: /because it is being terminated/ },
  { run: 'replace --force -f web.yaml --timeout=5s', shows: /replaced/ },
  { run: 'delete -f web.yaml', shows: /deleted/ },
  { run: 'delete deploy web', fails: /deployments\.apps "web" not found/ },
];

export const FILES: Record<string, string> = {
  'web.yaml': WEB,
  'web2.yaml': WEB.replace('1.25', '1.26'),
  'many.yaml': MANY,
  'node.yaml': NODE,
  'role.yaml':
    'apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: rec, namespace: default}\nrules: [{apiGroups: [""], resources: [pods], verbs: [get]}]\n',
};
