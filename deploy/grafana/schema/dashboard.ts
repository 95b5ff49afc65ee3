// What packtwin writes of Grafana's dashboards, strictly: no unknown key, no missing option. From it and the types of
// @grafana/schema `make_schema.py` makes the JSON schema that a test checks every dashboard with.
import type * as d from '@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import type * as common from '@grafana/schema/dist/types/common/common.gen';
import type * as timeseries from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';
import type * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import type * as gauge from '@grafana/schema/dist/types/raw/composable/gauge/panelcfg/x/types.gen';
import type * as barchart from '@grafana/schema/dist/types/raw/composable/barchart/panelcfg/x/types.gen';
import type * as bargauge from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen';
import type * as heatmap from '@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen';
import type * as xychart from '@grafana/schema/dist/types/raw/composable/xychart/panelcfg/x/types.gen';
import type * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import type * as statetimeline from '@grafana/schema/dist/types/raw/composable/statetimeline/panelcfg/x/types.gen';

interface Override { matcher: d.MatcherConfig; properties: Array<{ id: string; value?: unknown }>; }
interface Fields<F> extends Omit<d.FieldConfig, 'custom'> { custom?: F }
interface P<T, O, F> extends Omit<d.Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'datasource'> {
  type: T;
  options: O;
  fieldConfig: { defaults: Fields<F>; overrides: Override[] };
  datasource: d.DataSourceRef;
  targets: Array<SqlTarget | PromTarget>;
}
interface SqlTarget {
  refId: string; datasource: d.DataSourceRef; format: 'time_series' | 'table'; rawQuery: true; rawSql: string;
  editorMode: 'code'; hide?: boolean;
}
interface PromTarget {
  refId: string; datasource: d.DataSourceRef; expr: string; legendFormat: string; editorMode: 'code';
  range?: boolean; instant?: boolean; format?: 'time_series' | 'table' | 'heatmap'; interval?: string; hide?: boolean;
}
type None = Record<string, never>;
type AnyPanel =
  | P<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | P<'stat', stat.Options, None>
  | P<'gauge', gauge.Options, None>
  | P<'barchart', barchart.Options, barchart.FieldConfig>
  | P<'bargauge', bargauge.Options, None>
  | P<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | P<'xychart', xychart.Options, xychart.FieldConfig>
  | P<'table', table.Options, common.TableFieldOptions>
  | P<'state-timeline', statetimeline.Options, statetimeline.FieldConfig>;

export interface StrictDashboard extends Omit<d.Dashboard, 'panels'> {
  panels: Array<AnyPanel | d.RowPanel>;
  uid: string;
  title: string;
  description: string;
}
