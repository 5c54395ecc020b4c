// Every word that the page says, in each of its languages. {0}, {1}: what the caller puts in.

const table = {
  // pages
  chat: ["Chat", "对话"],
  dashboard: ["Dashboard", "监控"],
  model: ["Model", "模型"],
  pages: ["Pages", "页面"],
  skip: ["Skip to the message box", "跳到输入框"],
  close: ["Close", "关闭"],
  cancel: ["Cancel", "取消"],
  go_on: ["Continue", "继续"],
  settings: ["Settings", "设置"],
  theme_auto: ["Theme: as the system", "主题：跟随系统"],
  theme_light: ["Theme: light", "主题：浅色"],
  theme_dark: ["Theme: dark", "主题：深色"],
  theme: ["Theme", "主题"],
  switch_language: ["中文 (switch the language to Chinese)", "English（切换到英文）"],
  other_language: ["中文", "English"],

  // chat
  you: ["You", "你"],
  conversation: ["Conversation", "对话内容"],
  replies: ["Replies", "回复"],
  welcome: ["What can I help you with?", "有什么可以帮你？"],
  welcome_model: ["{0} runs on this server. Your chats stay in this browser.", "{0} 运行在这台服务器上，对话记录只保存在此浏览器中。"],
  your_message: ["Your message", "你的消息"],
  placeholder: ["Ask anything", "输入消息"],
  hint: ["Enter sends · Shift+Enter starts a line · Esc stops · / writes", "Enter 发送 · Shift+Enter 换行 · Esc 停止 · / 输入"],
  send: ["Send", "发送"],
  stop: ["Stop", "停止"],
  to_end: ["To the end", "到底部"],
  copy: ["Copy", "复制"],
  copy_code: ["Copy the code", "复制代码"],
  copied: ["Copied", "已复制"],
  code: ["code", "代码"],
  table: ["Table", "表格"],
  formula: ["Formula", "公式"],
  retry: ["Try again", "重试"],
  edit: ["Edit", "编辑"],
  edit_message: ["Edit the message", "编辑消息"],
  send_edited: ["Send", "发送"],
  version_before: ["Version before", "上一版本"],
  version_after: ["Version after", "下一版本"],
  version: ["{0} of {1}", "{0} / {1}"],
  thinking: ["Thinking", "思考中"],
  thought: ["Thought for {0} s", "思考了 {0} 秒"],
  thoughts: ["Thoughts", "思考过程"],
  waiting: ["Waiting for the first word", "等待回复"],
  reading: ["Reading the prompt, {0} %", "正在读取提示，{0}%"],
  stats: ["{0} tokens · {1} tokens/s", "{0} 个词元 · 每秒 {1} 个"],
  stats_one: ["{0} tokens", "{0} 个词元"],
  stats_prompt: ["{0} tokens in the prompt, first token after {1} s", "提示 {0} 个词元，首个词元用时 {1} 秒"],
  cut: ["The reply ended at the limit of tokens.", "回复达到词元上限。"],
  stopped: ["Stopped.", "已停止。"],
  empty_reply: ["The reply is empty.", "回复为空。"],
  suggest_1: ["Explain how tides work, in five sentences", "用五句话解释潮汐是怎么形成的"],
  suggest_2: ["Write a Python function that finds prime numbers", "写一个找素数的 Python 函数"],
  suggest_3: ["Compare tea and coffee in a table", "用表格比较茶和咖啡"],

  // errors
  error_network: ["The server cannot be reached.", "无法连接服务器。"],
  error_broken: ["The connection broke before the reply had ended.", "回复完成前连接中断。"],
  error_busy: ["The server is busy. Try again in {0} s.", "服务器繁忙，请在 {0} 秒后重试。"],
  error_key: ["The server asks for an API key.", "服务器需要 API 密钥。"],
  error_server: ["The server failed ({0}).", "服务器出错（{0}）。"],
  error_answer: ["The server's answer was not understood.", "无法理解服务器的回答。"],
  error_storage: ["The browser does not let this page store chats: they last until the page is closed.", "浏览器不允许保存对话：关闭页面后记录会丢失。"],

  // history
  history: ["Chats", "对话记录"],
  new_talk: ["New chat", "新对话"],
  no_talks: ["Your chats will be listed here.", "对话会显示在这里。"],
  rename: ["Rename “{0}”", "重命名“{0}”"],
  rename_field: ["Name of the chat", "对话名称"],
  remove: ["Delete “{0}”", "删除“{0}”"],
  removed: ["Deleted.", "已删除。"],
  undo: ["Undo", "撤销"],
  today: ["Today", "今天"],
  yesterday: ["Yesterday", "昨天"],
  earlier: ["Earlier", "更早"],
  untitled: ["Untitled", "未命名"],

  // settings
  system_prompt: ["System prompt", "系统提示"],
  system_placeholder: ["What the model is told before every chat", "每次对话前告诉模型的内容"],
  sampling: ["Sampling", "采样"],
  sampling_note: ["What is empty is left to the server.", "留空则使用服务器的默认值。"],
  temperature: ["Temperature", "温度"],
  top_p: ["Top p", "Top p"],
  min_p: ["Min p", "Min p"],
  max_tokens: ["Tokens of a reply", "回复词元上限"],
  presence_penalty: ["Presence penalty", "存在惩罚"],
  frequency_penalty: ["Frequency penalty", "频率惩罚"],
  seed: ["Seed", "随机种子"],
  stop_text: ["Stop at this text", "遇到此文本停止"],
  by_server: ["default", "默认"],
  export: ["Export", "导出"],
  import: ["Import", "导入"],
  delete_all: ["Delete all", "全部删除"],
  history_note: ["Chats are kept in this browser only.", "对话只保存在此浏览器中。"],
  imported: ["Chats imported: {0}.", "已导入 {0} 个对话。"],
  import_failed: ["This is not a file of exported chats.", "这不是导出的对话文件。"],
  all_removed: ["All chats deleted.", "所有对话已删除。"],
  api_key: ["API key", "API 密钥"],
  api_key_placeholder: ["only where the server asks for one", "仅在服务器需要时填写"],
  key_title: ["This server asks for an API key", "服务器需要 API 密钥"],
  key_note: ["It is kept until this tab is closed.", "密钥只保留到关闭此标签页。"],
  key_wrong: ["The server does not take this key.", "服务器不接受该密钥。"],

  // dashboard
  dashboard_note: ["Each second, from /metrics. Times are those of the last minute.", "每秒读取 /metrics；时间为最近一分钟的统计。"],
  dashboard_lost: ["No figures: {0}", "没有数据：{0}"],
  reply_speed: ["Reply speed", "生成速度"],
  prompt_speed: ["Prompt speed", "提示读取速度"],
  tokens_per_second: ["tokens/s", "词元/秒"],
  peak: ["at most {0} in two minutes", "两分钟内最高 {0}"],
  requests: ["Requests", "请求"],
  running: ["running", "运行中"],
  waiting_short: ["waiting", "等待中"],
  running_or_waiting: ["running or waiting", "运行或等待"],
  first_token: ["Time to first token", "首个词元时间"],
  between_tokens: ["Between tokens", "词元间隔"],
  p50: ["median", "中位数"],
  p95: ["95 % within {0}", "95% 不超过 {0}"],
  none_yet: ["no replies yet", "尚无回复"],
  cache: ["Cache", "缓存"],
  cache_used: ["{0} of {1} pages in use", "已用 {0} / {1} 页"],
  hits: ["Cache hits", "缓存命中"],
  hits_note: ["of the prompts' tokens since the start", "自启动以来的提示词元"],
  answers: ["Answers", "应答"],
  since_start: ["since the start", "自启动以来"],
  status: ["Status", "状态"],
  count: ["Count", "次数"],
  totals: ["Tokens so far", "累计词元"],
  in_prompts: ["in prompts", "提示"],
  in_replies: ["in replies", "回复"],
  experts: ["Experts", "专家"],
  experts_note: ["Each row is a layer, each column an expert; the stronger its colour, the more tokens went there.", "每行一层，每列一个专家；颜色越深处理的词元越多。"],
  expert_cell: ["Layer {0}, expert {1}: {2} tokens, {3} of the layer", "第 {0} 层，专家 {1}：{2} 个词元，占该层 {3}"],
  expert_summary: ["{0} layers of {1} experts. The busiest has {2} times its share: layer {3}, expert {4}.", "{0} 层，每层 {1} 个专家。最忙的是第 {3} 层专家 {4}，为平均的 {2} 倍。"],
  now: ["now", "现在"],

  // model card
  card_note: ["What runs on this server.", "这台服务器上运行的模型。"],
  family: ["Family", "系列"],
  adapter_of: ["Adapter of", "适配器，基于"],
  parameters: ["Parameters", "参数量"],
  active: ["{0}, {1} active per token", "{0}，每个词元激活 {1}"],
  layers: ["Layers", "层数"],
  width: ["Width", "宽度"],
  attention: ["Attention", "注意力"],
  gqa: ["{0} query heads, {1} key/value heads of {2}", "{0} 个查询头，{1} 个键值头，每头 {2} 维"],
  mla: ["latent (MLA): {0} heads, latents of {1} + {2}", "潜在注意力（MLA）：{0} 头，潜向量 {1} + {2}"],
  feed_forward: ["Feed-forward", "前馈"],
  dense: ["dense, {0}", "稠密，{0}"],
  moe: ["{0} experts of {1}, {2} active", "{0} 个专家（{1}），激活 {2} 个"],
  moe_shared: ["{0} experts of {1}, {2} active, {3} shared", "{0} 个专家（{1}），激活 {2} 个，共享 {3} 个"],
  vocabulary: ["Vocabulary", "词表"],
  context: ["Context", "上下文"],
  tokens_of: ["{0} tokens", "{0} 个词元"],
  weights: ["Weights", "权重"],
  weights_on_disk: ["experts are read from disk", "专家从磁盘读取"],
  kv_cache: ["Keys and values", "键值缓存"],
  cache_line: ["{0}, room for {1} tokens ({2})", "{0}，可容纳 {1} 个词元（{2}）"],
  chat_template: ["Chat template", "对话模板"],
  has_template: ["yes", "有"],
  no_template: ["none: a base model", "无：基础模型"],
  threads: ["Threads", "线程"],
  program: ["Program", "程序"],
  shape: ["Shape", "结构"],
  memory: ["Memory", "内存"],
  use_it: ["From programs", "在程序中使用"],
  use_note: ["Every client of the OpenAI interface works with this address:", "任何 OpenAI 接口的客户端都可使用此地址："],
  copy_address: ["Copy the address", "复制地址"],
};

export const languages = ["en", "zh"];
let index = 0;

export function setLanguage(language) {
  index = Math.max(0, languages.indexOf(language));
  document.documentElement.lang = index === 1 ? "zh-CN" : "en";
}
export const language = () => languages[index];
export const locale = () => (index === 1 ? "zh-CN" : "en");

export function t(key, ...values) {
  return table[key][index].replace(/\{(\d)\}/g, (_, i) => values[i]);
}

// Elements that carry the key of what they say.
export function translate(root = document) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
  for (const node of root.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", t(node.dataset.tLabel));
    if (node.tagName === "BUTTON") node.title = t(node.dataset.tLabel);
  }
}

export const strings = table;
