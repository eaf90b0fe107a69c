// Validates custom resources: `node validate.mjs FILE.yaml …`. Prints what is wrong; exits with 1 then.
import { readFileSync } from "node:fs";

import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { loadAll } from "js-yaml";

const kinds = { PodMonitor, PrometheusRule, ScaledObject };
let count = 0;
let failures = 0;

for (const file of process.argv.slice(2)) {
  for (const object of loadAll(readFileSync(file, "utf8"))) {
    count += 1;
    const name = `${object.kind} ${object.metadata.name}`;
    try {
      if (!(object.kind in kinds)) throw new Error("there is no validator for this kind");
      new kinds[object.kind](object).validate();
    } catch (error) {
      failures += 1;
      console.error(`${file}: ${name}: ${error.message}`);
    }
  }
}
console.log(`${count} custom resources, ${failures} of them wrong`);
process.exit(failures || !count ? 1 : 0);
